"""Traces over the real server and a real collector: a trace for every outcome, and nothing that harms a stream."""

import asyncio
import json
import os
import re
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs weir-proxy[otel]")

from tests.collector import Collector, Told
from tests.crews import serving
from tests.driver import DONE, WORDS, answer, body, chunk, read
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels
from tests.servers import Weir, weir
from tests.sockets import Reply, ask, connected, free_port, http_request

ANSWER = answer(["one"])
METRICS = http_request(b"", method="GET", path="/metrics", headers={"Host": "127.0.0.1", "Content-Type": ""})
CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, SPAN = CLIENT.split("-")[1:3]
STREAM, PROMPT = "guard stream", "guard prompt"


@dataclass
class Seen:
    """What the collector has of one request when the server has stopped, which sends what is queued."""

    collector: Collector
    spans: dict[str, Told]
    reply: Reply


async def seen(
    outcome: str,
    upstream: ScriptedUpstream | None = None,
    guard: ScriptedGuard | None = None,
    request: bytes | None = None,
    **settings: Any,
) -> Seen:
    request = request or http_request(stream=True)
    async with Collector().running() as collector:
        async with weir(upstream, guard, telemetry__endpoint=collector.url, **settings) as server:
            reply = await ask(server.url, request)
        return Seen(collector, collector.trace(outcome), reply)


async def streamed(server: Weir, headers: dict[str, str] | None = None) -> Any:
    return read((await ask(server.url, http_request(headers=headers, stream=True))).body)


def check_tree(found: dict[str, Told]) -> None:
    own = found["server"]
    for one in found.values():
        assert one.trace_id == own.trace_id
        assert one is own or one.parent_id == own.span_id
        assert own.begin <= one.begin <= one.end <= own.end + 1_000_000  # both are rounded
        assert one.resource["service.name"] == "weir"


async def test_a_complete_answer_is_a_trace_of_four_spans() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 8, "completion_tokens_details": {"reasoning_tokens": 3}}
    counts = chunk({}, usage=usage)
    upstream = ScriptedUpstream([*answer(["one", " two", " three"])[:-1], counts, DONE])
    request = http_request(stream=True, stream_options={"include_usage": True})
    found = (await seen("complete", upstream, request=request)).spans
    check_tree(found)
    assert found.keys() == {"server", "chat m", PROMPT, STREAM}
    own, called, prompt, stream = (found[name] for name in ("server", "chat m", PROMPT, STREAM))
    assert own.name == "POST /v1/chat/completions"
    assert own.attributes["http.response.status_code"] == 200
    assert "weir.first_byte" in own.events
    assert (own.parent_id, own.is_error) == ("", False)
    assert called.kind == 3
    said = called.attributes
    assert (said["gen_ai.operation.name"], said["gen_ai.provider.name"]) == ("chat", "openai")
    assert (said["gen_ai.request.model"], said["gen_ai.response.model"]) == ("m", "m")
    assert (said["gen_ai.request.stream"], said["gen_ai.response.id"]) == (True, "chatcmpl-1")
    assert said["gen_ai.response.finish_reasons"] == ["stop"]
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (12, 8)
    assert said["gen_ai.usage.reasoning.output_tokens"] == 3
    assert said["gen_ai.response.time_to_first_chunk"] > 0
    assert (said["server.address"], said["server.port"]) == ("127.0.0.1", int(upstream.url.rsplit(":", 1)[1]))
    assert "weir.upstream_first_byte" in called.events
    assert prompt.attributes["weir.guard.tokens"] > 0
    assert prompt.attributes["weir.risk.level"] == "Safe"
    assert stream.attributes["weir.guard.tokens"] == 3
    assert 1 <= stream.attributes["weir.guard.batches"] <= 3
    assert stream.attributes["weir.guard.lag_max_seconds"] >= stream.attributes["weir.guard.lag_p50_seconds"] > 0
    assert not stream.events


async def test_a_cut_says_where_and_why_and_not_what() -> None:
    found = await seen("cut", ScriptedUpstream(answer(WORDS)), ScriptedGuard(labels("SSUU")))
    check_tree(found.spans)
    cut = found.spans[STREAM].events["weir.cut"]
    assert (cut["weir.channel"], cut["weir.choice"], cut["weir.start"]) == ("content", 0, len("one two"))
    assert (cut["weir.risk.level"], cut["weir.risk.category"]) == ("Unsafe", "Violent")
    assert not found.spans["server"].is_error
    assert b" three" not in found.collector.raw


async def test_a_text_that_is_only_told_of_is_flagged_and_not_cut() -> None:
    guard = ScriptedGuard(labels("SSUU"))
    found = await seen("complete", ScriptedUpstream(answer(WORDS)), guard, policy__on_flag="annotate")
    assert found.spans[STREAM].events.keys() == {"weir.flag"}


@pytest.mark.parametrize("block", ["error", "answer"])
async def test_a_blocked_prompt(block: str) -> None:
    wanted: dict[str, Any] = {"policy__prompt_block": block, "policy__prompt_check": "before"}
    outcome = "refused" if block == "error" else "cut"
    found = (await seen(outcome, None, ScriptedGuard(prompt_level=UNSAFE), **wanted)).spans
    assert found.keys() == {"server", PROMPT}, "nothing was asked of the upstream"
    assert found[PROMPT].attributes["weir.guard.is_blocked"] is True
    assert found["server"].attributes["http.response.status_code"] == (400 if block == "error" else 200)
    assert not found["server"].is_error


async def test_an_upstream_that_breaks_off_is_an_error_of_its_span_and_ours() -> None:
    found = (await seen("error", ScriptedUpstream(answer(WORDS), cut_at=4))).spans
    assert found["server"].attributes["error.type"] == found["chat m"].attributes["error.type"] == "upstream_ended"
    assert [name for name, one in found.items() if one.is_error] == ["server", "chat m"]


async def test_an_upstream_that_is_not_there_is_an_error_of_its_span() -> None:
    found = (await seen("refused", upstream__base_url="http://127.0.0.1:9")).spans
    assert found["chat m"].attributes["error.type"] == "upstream_unreachable"
    assert found["chat m"].attributes["server.port"] == 9
    assert found["server"].is_error  # 502


async def test_a_guard_that_fails_is_an_error_of_its_span_and_ours() -> None:
    found = (await seen("error", ScriptedUpstream(answer(WORDS)), ScriptedGuard(fails_after=3))).spans
    assert found[STREAM].attributes["error.type"] == "GuardError"
    assert found["server"].attributes["error.type"] == "guard_unavailable"
    assert [name for name, one in found.items() if one.is_error] == ["server", STREAM]


async def test_a_guard_that_fails_on_the_prompt() -> None:
    found = (await seen("refused", guard=ScriptedGuard(prompt_fault="raise"), policy__prompt_check="before")).spans
    assert found.keys() == {"server", PROMPT}
    assert found[PROMPT].attributes["error.type"] == "GuardError"


async def test_a_client_that_leaves() -> None:
    upstream = ScriptedUpstream(answer(WORDS), stall_at=5)
    async with Collector().running() as collector:
        async with weir(upstream, telemetry__endpoint=collector.url) as server:
            async with connected(server.url) as client:
                await client.send(http_request(stream=True))
                await client.read_until(b" two")
            async with asyncio.timeout(10):
                await upstream.left.wait()
        found = collector.trace("client_gone")
    check_tree(found)
    assert found.keys() == {"server", "chat m", PROMPT, STREAM}
    assert "gen_ai.response.finish_reasons" not in found["chat m"].attributes


async def test_a_refused_request_and_one_that_the_upstream_refuses() -> None:
    found = (await seen("refused", request=http_request(b"{"))).spans
    assert found.keys() == {"server"}
    assert found["server"].attributes["weir.error"] == "invalid_json"
    assert found["server"].attributes["http.response.status_code"] == 400
    found = (await seen("refused", ScriptedUpstream([b'{"error": {"code": "secret_word"}}'], status=429))).spans
    assert found["chat m"].attributes["error.type"] == "429"
    assert found["server"].attributes["weir.error"] == "other", "an upstream's words are not told"
    assert found["chat m"].is_error
    assert not found["server"].is_error  # what a client is told with a status below 500 is its own


async def test_a_whole_answer() -> None:
    upstream = ScriptedUpstream([body({"content": "one two"})], content_type="application/json")
    found = (await seen("complete", upstream, request=http_request())).spans
    check_tree(found)
    assert "gen_ai.request.stream" not in found["chat m"].attributes
    assert found["chat m"].attributes["gen_ai.response.finish_reasons"] == ["stop"]


async def test_a_route_that_nobody_judges() -> None:
    upstream = ScriptedUpstream([b"{}"], content_type="application/json")
    request = http_request(b'{"input": "x"}', path="/v1/embeddings")
    found = (await seen("complete", upstream, request=request, passthrough__allow="embeddings")).spans
    assert found.keys() == {"server", "embeddings"}
    assert found["server"].attributes["weir.scanned"] == "none"


async def test_a_call_that_generates_nothing_is_named_by_its_route() -> None:
    upstream = ScriptedUpstream([b"{}"], content_type="application/json")
    request = http_request(b"", method="GET", path="/v1/files", headers={"Content-Type": ""})
    found = (await seen("complete", upstream, request=request, passthrough__allow="files")).spans
    assert "gen_ai.provider.name" not in found["GET /v1/files"].attributes
    count = ScriptedUpstream([b'{"input_tokens": 3}'], content_type="application/json")
    request = http_request(path="/v1/messages/count_tokens", headers={"traceparent": CLIENT}, max_tokens=9)
    found = (
        await seen("complete", count, request=request, upstream__dialect="anthropic", telemetry__upstream_traces="none")
    ).spans
    assert found["POST /v1/messages/count_tokens"].attributes["http.response.status_code"] == 200
    assert "traceparent" not in count.requests[0]["headers"]


async def test_texts_that_are_only_judged_have_the_guards_span() -> None:
    request = http_request({"input": "hello"}, path="/v1/moderations")
    found = (await seen("complete", guard=ScriptedGuard(prompt_level=UNSAFE), request=request)).spans
    assert found.keys() == {"server", PROMPT}
    assert found[PROMPT].attributes["weir.guard.is_flagged"] is True
    found = (await seen("refused", guard=ScriptedGuard(prompt_fault="raise"), request=request)).spans
    assert found[PROMPT].attributes["error.type"] == "GuardError"


# Whose trace it is.


@pytest.mark.parametrize("wanted", ["link", "join", "ignore"])
async def test_a_clients_trace_is_linked_to_unless_settings_say_otherwise(wanted: str) -> None:
    request = http_request(headers={"traceparent": CLIENT}, stream=True)
    found = await seen("complete", ScriptedUpstream(ANSWER), request=request, telemetry__client_traces=wanted)
    own = found.spans["server"]
    assert (own.trace_id == TRACE) == (wanted == "join")
    assert own.parent_id == (SPAN if wanted == "join" else "")
    assert own.links == ([(TRACE, SPAN)] if wanted == "link" else [])


@pytest.mark.parametrize("wanted", ["client", "own", "none"])
async def test_an_upstream_is_told_what_settings_say(wanted: str) -> None:
    upstream = ScriptedUpstream(ANSWER)
    request = http_request(headers={"traceparent": CLIENT, "tracestate": "a=b"}, stream=True)
    span = (await seen("complete", upstream, request=request, telemetry__upstream_traces=wanted)).spans["chat m"]
    headers = upstream.requests[0]["headers"]
    ours = f"00-{span.trace_id}-{span.span_id}-01"
    assert headers.get("traceparent") == {"client": CLIENT, "own": ours, "none": None}[wanted]
    assert headers.get("tracestate") == ("a=b" if wanted == "client" else None)


@pytest.mark.parametrize("wanted", ["client", "none"])
async def test_a_list_of_models_has_no_span_and_tells_no_more(wanted: str) -> None:
    upstream = ScriptedUpstream([b'{"object": "list", "data": []}'], content_type="application/json")
    request = http_request(b"", method="GET", path="/v1/models", headers={"Content-Type": "", "traceparent": CLIENT})
    async with Collector().running() as collector:
        async with weir(upstream, telemetry__endpoint=collector.url, telemetry__upstream_traces=wanted) as server:
            assert (await ask(server.url, request)).status == 200
        assert collector.spans == []
    assert ("traceparent" in upstream.requests[0]["headers"]) == (wanted == "client")


async def test_a_joined_client_decides_whether_it_is_traced_and_a_share_decides_for_others() -> None:
    settings: dict[str, Any] = {"telemetry__client_traces": "join", "telemetry__sample": 0}
    given: list[dict[str, str]] = [{}, {"traceparent": CLIENT[:-1] + "0"}, {"traceparent": CLIENT}]
    async with (
        Collector().running() as collector,
        weir(ScriptedUpstream(ANSWER), telemetry__endpoint=collector.url, **settings) as server,
    ):
        for headers in given:
            assert (await streamed(server, headers)).is_done
        await collector.until_asked()
    assert {one.trace_id for one in collector.spans} == {TRACE}


# What is told, and what is not.


@pytest.mark.parametrize(("general", "of_policy"), [(False, None), (True, None), (True, False), (False, True)])
async def test_text_is_told_only_where_that_is_asked_for(general: bool, of_policy: bool | None) -> None:
    settings: dict[str, Any] = {"telemetry__content": general}
    if of_policy is not None:
        settings["policy__trace_content"] = of_policy
    messages = [{"role": "user", "content": "my password: hunter2hunter2"}]
    headers = {"authorization": "Bearer sk-canary-key-0123456789"}
    request = http_request(headers=headers, stream=True, messages=messages)
    found = await seen("complete", ScriptedUpstream(answer(["one", " two"])), request=request, **settings)
    said, raw = found.spans["chat m"].attributes, found.collector.raw
    is_told = general if of_policy is None else of_policy
    assert ("gen_ai.input.messages" in said) == ("gen_ai.output.messages" in said) == is_told
    assert b"hunter2" not in raw
    assert b"canary" not in raw
    assert (b"one two" in raw) == is_told
    if is_told:
        (asked,), (answered,) = (json.loads(said[f"gen_ai.{side}.messages"]) for side in ("input", "output"))
        assert asked["role"] == "user"
        assert asked["parts"][0]["content"].startswith("my password: *")
        part = {"type": "text", "content": "one two"}
        assert answered == {"role": "assistant", "parts": [part], "finish_reason": "stop"}


# Nothing harms a stream.


async def counted(port: int) -> dict[str, float]:
    """Spans by what became of them, on the operator's listener."""
    text = (await ask(f"http://127.0.0.1:{port}", METRICS)).body.decode()
    return {state: float(number) for state, number in re.findall(r'weir_spans_total{state="(\w+)"} (\S+)', text)}


async def until_counted(port: int, wanted: dict[str, float]) -> None:
    async with asyncio.timeout(30):
        while await counted(port) != wanted:  # noqa: ASYNC110  the exporter is a thread of its own
            await asyncio.sleep(0.02)


async def test_a_collector_that_refuses_costs_counted_spans_alone() -> None:
    port = free_port()
    async with (
        Collector(status=400).running() as collector,
        weir(ScriptedUpstream(ANSWER), telemetry__endpoint=collector.url, admin__port=port) as server,
    ):
        assert (await streamed(server)).content == "one"
        await until_counted(port, {"dropped": 4, "exported": 0})
        collector.status = 200
        assert (await streamed(server)).content == "one"
        await until_counted(port, {"dropped": 4, "exported": 4})


async def test_a_collector_that_hangs_holds_up_no_stream_and_no_stop(caplog: pytest.LogCaptureFixture) -> None:
    clock = asyncio.get_running_loop()
    async with Collector(is_silent=True).running() as collector:
        async with weir(ScriptedUpstream(ANSWER), telemetry__endpoint=collector.url) as server:
            await streamed(server)
            await collector.until_asked()
            assert (await streamed(server)).content == "one"
            began = clock.time()
        assert clock.time() - began < 20  # the collector would have it wait for an hour
    assert "spans were lost" in caplog.text


async def test_the_standard_variables_set_the_endpoint_and_its_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Collector().running() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=abc")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "gate")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        async with weir(ScriptedUpstream(ANSWER)) as server:
            await streamed(server)
        resource = collector.trace("complete")["server"].resource
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("gate", "test")
    assert resource["service.instance.id"]
    assert collector.headers[0]["x-token"] == "abc"
    assert collector.headers[0]["Content-Encoding"] == "gzip"


# That spans name their process is shown above for one; this takes ten seconds.
@pytest.mark.skipif("WEIR_LONG" not in os.environ, reason="WEIR_LONG=1: it starts a parent, two workers and an engine")
async def test_each_worker_tells_its_own_and_says_which_it_is() -> None:
    async with (
        Collector().running() as collector,
        ScriptedUpstream(ANSWER).running() as upstream,
        serving(upstream.url, "--workers", "2", "--port", "0", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as server,
    ):
        pids = server.workers
        async with asyncio.timeout(30):
            while len({one.resource["process.pid"] for one in collector.spans}) < 2:
                assert read((await ask(server.url, http_request(stream=True))).body).content == "one"
        assert await server.end() == 0
    assert {one.resource["process.pid"] for one in collector.spans} == pids
    assert len({one.resource["service.instance.id"] for one in collector.spans}) == 2
