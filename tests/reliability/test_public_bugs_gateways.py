"""Public bugs of other gateways and guard proxies, each as a test that Weir does not have it."""

import asyncio
import json

import pytest

from tests.doors import DOORS, block_events, message_events, text_block
from tests.driver import DONE, WORDS, answer, body, call, chunk
from tests.e2e.test_streams import events
from tests.fakes import CONTROVERSIAL, ScriptedGuard, ScriptedUpstream, labels
from tests.reliability.bugs import CANARY, FLAGGED, JSON, is_cut, parts, tell
from tests.servers import recorded, weir
from tests.sockets import PATIENCE_SECONDS, ask, connected, http_request, timed

BOTH_WAYS = pytest.mark.parametrize("is_streamed", [True, False], ids=["stream", "body"])


# api7/aisix.


@pytest.mark.parametrize("door", DOORS)
async def test_aisix_204_stream_true_is_no_way_around(door: str) -> None:
    """api7/aisix#204: the output guardrail ran on whole bodies only, so `stream: true` went around it."""
    assert is_cut(await tell(door, is_streamed=True), door)


async def test_aisix_222_text_whose_check_is_pending_is_not_followed_by_an_end() -> None:
    """api7/aisix#222: text was checked only when the stream ended cleanly; a broken one was never checked."""
    upstream = ScriptedUpstream(parts(*[f"{word} " for word in FLAGGED.split()]), cut_at=11)
    told = await tell(upstream=upstream)
    assert b"canary" not in told.reply.raw
    assert told.record["outcome"] == "cut"


@BOTH_WAYS
async def test_aisix_448_reasoning_is_judged(is_streamed: bool) -> None:
    """api7/aisix#448, finding 2: reasoning_content reached the client without the guardrail."""
    chunks = [*parts(FLAGGED, field="reasoning_content"), chunk({}, "stop"), DONE]
    told = await tell(chunks=chunks if is_streamed else [body({"reasoning_content": FLAGGED, "content": ""})],
                      is_streamed=is_streamed)  # fmt: skip
    assert b"canary" not in told.reply.raw
    assert told.record["outcome"] == "cut"


async def test_aisix_448_the_end_of_an_oversized_word_is_judged() -> None:
    """api7/aisix#448, finding 4: of a word longer than the check takes, only the beginning was read."""
    told = await tell(chunks=answer(["fine " + "x" * 6_000, "x" * 2_000 + " a canary sings on"]))
    assert b"canary" not in told.reply.raw
    assert told.record["outcome"] == "cut"
    [prompt, *_] = sorted((await tell(text="fine", more={"messages": LONG_WORD})).guard.fed, key=len, reverse=True)
    assert len(prompt) > 1000


LONG_WORD = [{"role": "user", "content": "x" * 12_000}]


async def test_aisix_448_every_model_has_the_guard() -> None:
    """api7/aisix#448, finding 5: guardrails were bound to the name asked for, not to the model that answered."""
    for model in ("m", "router", "another/model", "ft:m:x"):
        assert is_cut(await tell(more={"model": model}))


async def test_aisix_448_counting_tokens_forwards_no_prompt() -> None:
    """api7/aisix#448, finding 6: count_tokens sent prompts on unchecked."""
    async with weir(ScriptedUpstream([b"{}"], content_type=JSON)) as server:
        assert (await ask(server.url, http_request(path="/v1/messages/count_tokens"))).status == 404
        assert server.upstream.requests == []


async def test_aisix_448_the_same_question_again_is_judged_again() -> None:
    """api7/aisix#448, finding 28: what came out of the cache was not checked."""
    guard = ScriptedGuard()
    async with weir(ScriptedUpstream([body({"content": FLAGGED})], content_type=JSON), guard) as server:
        assert b"canary" in (await ask(server.url)).raw
        guard.rule = CANARY
        assert b"canary" not in (await ask(server.url)).raw
    assert len(server.upstream.requests) == 2


async def test_aisix_466_text_is_judged_before_it_leaves_not_after() -> None:
    """api7/aisix#466: each chunk was forwarded at once, and the check followed at the end."""
    upstream = ScriptedUpstream(answer(WORDS), stall_at=6)
    guard = ScriptedGuard(labels(""))
    guard.delay = 1.0
    async with weir(upstream, guard) as server, connected(server.url) as client, asyncio.timeout(PATIENCE_SECONDS):
        await client.send(http_request(stream=True))
        await guard.judging.wait()
        await asyncio.sleep(0.1)
        assert b"one" not in client.received
        await client.read_until(b'"one')


@pytest.mark.parametrize("name", ["canary_of_doom", "sing"])
async def test_aisix_546_names_and_arguments_of_calls_are_judged(name: str) -> None:
    """api7/aisix#546: tool calls were no part of what the output guardrail read."""
    arguments = '{"song": "a canary sings"}' if name == "sing" else "{}"
    told = await tell(
        chunks=[call(0, name), *(call(0, arguments=one) for one in arguments), chunk({}, "tool_calls"), DONE]
    )
    assert b"canary_" not in told.reply.raw
    assert events(told.reply).finish == {0: "content_filter"}


async def test_aisix_558_a_flagged_call_of_a_message_is_none_that_can_be_run() -> None:
    """api7/aisix#558: tool_use blocks in streams of /v1/messages were passed on."""
    use = {"type": "tool_use", "id": "t", "name": "sing", "input": {}}
    pieces = [{"type": "input_json_delta", "partial_json": part} for part in ('{"song": "a ca', 'nary sings"}')]
    told = await tell("messages", chunks=message_events(text_block(0, "fine"), block_events(1, use, *pieces)))
    assert told.heard is not None
    assert told.heard.finish == "refusal"
    assert b"nary" not in told.reply.raw


async def test_aisix_760_a_monitor_neither_holds_nor_fails() -> None:
    """api7/aisix#760: in monitor mode streams were held whole, and refused where they were long."""
    guard = ScriptedGuard(labels("SSUUUU"))
    guard.delay = 3600
    upstream = ScriptedUpstream(answer(WORDS), stall_at=11)
    async with weir(upstream, guard, policy__on_flag="monitor") as server, connected(server.url) as client:
        await client.send(http_request(stream=True))
        with timed():
            await client.read_until(b"one")
    long = " ".join(["word"] * 1_000)
    told = await tell(chunks=answer([long]), guard=ScriptedGuard(prompt_level=CONTROVERSIAL), policy__on_flag="monitor")
    assert told.heard is not None
    assert told.heard.text == long


async def test_aisix_1115_what_cannot_be_judged_is_refused() -> None:
    """api7/aisix#1115: images went past the guardrail, which reads text."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    told = await tell(more={"messages": [{"role": "user", "content": [image]}]})
    assert (told.reply.status, told.asked) == (400, [])


# agentgateway.


async def test_agentgateway_2387_a_guard_that_never_answers_is_a_failure() -> None:
    """agentgateway/agentgateway#2387: the guardrail's call had no deadline, so its failure mode never engaged."""
    guard = ScriptedGuard(fails_after=2, fault="hang")
    with timed():
        told = await tell(text=FLAGGED, guard=guard, guard__verdict_seconds=0.2)
    assert told.heard is not None
    assert told.heard.error is not None
    assert told.record["outcome"] == "error"


async def test_agentgateway_3477_text_that_is_held_is_no_silence() -> None:
    """agentgateway/agentgateway#3477: held text counted as an idle stream: 200, and an empty body."""
    upstream = ScriptedUpstream(answer(WORDS), pause=0.1)
    guard = ScriptedGuard(labels("US" * 5))
    async with weir(upstream, guard, upstream__idle_seconds=1.0, server__heartbeat_seconds=0.1) as server:
        reply = await ask(server.url, stream=True)
    assert events(reply).content == "".join(WORDS)
    assert reply.is_complete


async def test_agentgateway_3603_a_stream_of_a_guarded_server_arrives() -> None:
    """agentgateway/agentgateway#3603: with a response guardrail anywhere, streams came back empty or were reset."""
    told = await tell(text="these words are fine")
    assert told.reply.is_complete
    assert told.heard is not None
    assert told.heard.text == "these words are fine"


@pytest.mark.parametrize("event", [b'data: {"canary', b"data: canary\n\n", b'data: ["canary"]\n\n', b"canary\n\n"])
async def test_agentgateway_what_has_no_text_to_it_is_not_flushed(event: bytes) -> None:
    """agentgateway streaming_guardrails.rs: frames without decoded text were forwarded as they were."""
    told = await tell(chunks=[*parts("fine words"), event, *parts("more"), DONE])
    assert b"canary" not in told.reply.raw


async def test_agentgateway_choices_beyond_the_first_are_read() -> None:
    """agentgateway streaming_guardrails.rs: the text was taken from choices[0]."""
    both = [{"index": 0, "delta": {"content": "fine"}}, {"index": 1, "delta": {"content": FLAGGED}}]
    event = f"data: {json.dumps({'id': 'x', 'choices': both})}\n\n".encode()
    told = await tell(chunks=[event, chunk({}, "stop", index=0), chunk({}, "stop", index=1), DONE], more={"n": 2})
    assert b"canary" not in told.reply.raw
    assert events(told.reply).finish == {0: "stop", 1: "content_filter"}


async def test_agentgateway_the_default_is_closed() -> None:
    """agentgateway/agentgateway#1946: a guardrail that is not reached may pass; ours never does unasked."""
    told = await tell(guard=ScriptedGuard(fails_after=0))
    assert b"words" not in told.reply.raw
    assert told.record["outcome"] == "error"


# Portkey, Cloudflare, Envoy and others.


@pytest.mark.parametrize("header", ["x-portkey-custom-host", "x-portkey-config", "x-portkey-provider", "x-upstream"])
async def test_portkey_cve_2025_66405_no_header_names_the_upstream(header: str) -> None:
    """CVE-2025-66405: x-portkey-custom-host sent a request, and what was with it, to any host."""
    async with ScriptedUpstream(answer(WORDS)).running() as canary:
        told = await tell(text="fine", headers={header: canary.url}, upstream__api_key="sk-own")
        assert canary.requests == []
    assert told.reply.status == 200
    assert header not in {name.lower() for name in told.asked[0]["headers"]}


async def test_portkey_cve_2026_110719_loopback_is_no_exception() -> None:
    """CVE-2026-110719: hosts on loopback were trusted, whoever named them."""
    for host in ("127.0.0.1:9", "localhost:9", "[::1]:9", "0.0.0.0:9"):
        told = await tell(text="fine", headers={"x-portkey-custom-host": f"http://{host}", "x-forwarded-host": host})
        assert (told.reply.status, len(told.asked)) == (200, 1)


async def test_portkey_1119_a_stream_is_judged_while_it_streams() -> None:
    """Portkey-AI/gateway#1119: hooks behind the request were skipped for streams, or ran when all had left."""
    upstream = ScriptedUpstream(parts(*FLAGGED.split(" ")[:6], " a canary", " sings", " on"), stall_at=9)
    told = await tell(upstream=upstream)
    assert events(told.reply).finish == {0: "content_filter"}
    assert upstream.closed_early == 1


@BOTH_WAYS
async def test_cloudflare_32964_answers_are_judged_however_they_come(is_streamed: bool) -> None:
    """cloudflare/cloudflare-docs#32964: with `stream: true` the evaluation of the response is skipped."""
    assert is_cut(await tell(is_streamed=is_streamed))


async def test_cloudflare_22563_a_guarded_stream_still_streams() -> None:
    """cloudflare/cloudflare-docs#22563: with guardrails on, the answer came in one piece at its end."""
    upstream = ScriptedUpstream(answer(WORDS), stall_at=8)
    async with weir(upstream) as server, connected(server.url) as client, asyncio.timeout(PATIENCE_SECONDS):
        await client.send(http_request(stream=True))
        await client.read_until(b'" four')


async def test_envoy_45220_a_guard_that_is_not_there_is_not_open() -> None:
    """envoyproxy/envoy#45220: failure_mode_allow was false, and without a client object traffic passed."""
    for fault in ("raise", "hang"):
        guard = ScriptedGuard(prompt_fault=fault)
        told = await tell(guard=guard, guard__verdict_seconds=0.1, guard__admission_seconds=0.1)
        assert told.reply.status in (503, 504)
        assert b"words" not in told.reply.raw


async def test_semantic_router_1393_an_answer_is_judged_though_its_prompt_was_fine() -> None:
    """vllm-project/semantic-router#1393: only the input was classified, so harm in an answer went unseen."""
    told = await tell()
    assert told.record["prompt"]["risk_level"] == "Safe"
    assert is_cut(told)


async def test_semantic_router_2446_an_answer_speaks_the_dialect_it_was_asked_in() -> None:
    """vllm-project/semantic-router#2446: /v1/responses streamed chat.completion.chunk frames."""
    told = await tell("responses", "these words are fine")
    assert told.heard is not None
    assert [event["type"] for event in told.heard.events][:2] == ["response.created", "response.in_progress"]
    assert b"chat.completion" not in told.reply.raw
    assert b"[DONE]" not in told.reply.raw
    told = await tell("responses", chunks=answer(WORDS))
    assert told.reply.status == 502


async def test_semantic_router_913_a_stream_asked_twice_is_a_stream_twice() -> None:
    """vllm-project/semantic-router#913: an answer out of the cache was no event stream, or garbage."""
    async with weir(ScriptedUpstream(answer(WORDS))) as server:
        for _ in range(2):
            reply = await ask(server.url, stream=True)
            assert reply.headers["content-type"].startswith("text/event-stream")
            assert events(reply).content == "".join(WORDS)
    assert len(server.upstream.requests) == 2


async def test_semantic_router_2587_the_probability_is_of_the_level_that_is_named() -> None:
    """vllm-project/semantic-router#2587: risk_score was the confidence of the winning class, Safe included."""
    told = await tell()
    notes = [event["weir"] for event in events(told.reply).events if "weir" in event and "risk_prob" in event["weir"]]
    assert {(note["risk_level"], note["risk_prob"]) for note in notes} == {("Safe", 0.9), ("Unsafe", 0.9)}


async def test_semantic_router_1843_a_prompt_of_4000_tokens_crashes_nothing() -> None:
    """vllm-project/semantic-router#1843: the router died of a prompt of about 4,000 tokens."""
    told = await tell(text="fine", more={"messages": [{"role": "user", "content": "four thousand words " * 1400}]})
    assert told.reply.status == 200
    assert max(map(len, told.guard.fed)) > 4000


async def test_defenseclaw_99_a_verdict_that_comes_late_is_not_taken_for_none() -> None:
    """defenseclaw#99: text had been streamed by the time its verdict came."""
    guard = ScriptedGuard(CANARY)
    guard.delay = 0.05
    assert is_cut(await tell(guard=guard))


@pytest.mark.parametrize("seconds", [0.2, 3600])
async def test_akto_and_open_appsec_slowness_never_opens(seconds: float) -> None:
    """akto (a breaker after 8 s), open-appsec (3 s, then "transparency"), openai-agents-go#103: slow meant open."""
    guard = ScriptedGuard(CANARY)
    guard.delay = seconds
    told = await tell(guard=guard, guard__verdict_seconds=1.0)
    assert b"canary" not in told.reply.raw
    assert told.record["outcome"] == ("cut" if seconds < 1.0 else "error")


async def test_tale_1596_what_is_flagged_today_is_not_served_from_yesterday() -> None:
    """tale#1596: a cached answer skipped the moderation."""
    guard = ScriptedGuard(CANARY)
    upstream = ScriptedUpstream(answer(["fine"]))
    async with weir(upstream, guard) as server:
        assert events(await ask(server.url, stream=True)).content == "fine"
        upstream.chunks = answer([FLAGGED])
        with recorded() as records:
            assert b"canary" not in (await ask(server.url, stream=True)).raw
            assert (await records.next())["outcome"] == "cut"
