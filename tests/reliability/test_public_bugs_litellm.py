"""Public bugs of LiteLLM, each as a test that Weir does not have it. The docstring is the reference."""

import asyncio
import json
import logging
from typing import Any

import pytest

from proxy.identity import digest_of
from proxy.verdict_handlers import GUARDRAIL
from proxy.vocabulary import FIRST_CONTROL_ID, decode
from tests.doors import DOORS, block_events, message_events, message_item_events, response_events, sse_event, text_block
from tests.driver import DONE, WORDS, answer, chunk
from tests.e2e.test_streams import events
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream
from tests.reliability.bugs import FLAGGED, JSON, is_cut, parts, tell
from tests.reliability.environment import ROOT
from tests.servers import weir
from tests.sockets import PATIENCE_SECONDS, ask, connected, http_request

EVERY_DOOR = pytest.mark.parametrize("door", DOORS)
BOTH_WAYS = pytest.mark.parametrize("is_streamed", [True, False], ids=["stream", "body"])


async def is_not_there(*paths: str) -> None:
    async with weir(ScriptedUpstream([b"{}"], content_type=JSON)) as server:
        for path in paths:
            assert (await ask(server.url, http_request(path=path))).status == 404, path
        assert server.upstream.requests == []


async def test_litellm_17221_no_route_passes_through() -> None:
    """BerriAI/litellm#17221: guardrails on pass-through routes had to be asked for."""
    await is_not_there(
        "/openai/v1/chat/completions", "/anthropic/v1/messages", "/bedrock/model/m/invoke", "/azure/chat/completions",
        "/cohere/v1/chat", "/vllm/v1/chat/completions", "/v1/chat/completions/anything", "/openai_passthrough/models",
    )  # fmt: skip


@BOTH_WAYS
@EVERY_DOOR
async def test_litellm_32201_no_answer_skips_its_check(door: str, is_streamed: bool) -> None:
    """BerriAI/litellm#32201: post_call guardrails were never enforced on some routes, tool calls among them."""
    assert is_cut(await tell(door, is_streamed=is_streamed), door)


async def test_litellm_20270_an_answer_of_another_form_than_asked_for_is_not_passed_on() -> None:
    """BerriAI/litellm#20270: answers of pass-through routes reached the client without a guardrail."""
    told = await tell(upstream=ScriptedUpstream([FLAGGED.encode()], content_type="text/plain"))
    assert told.reply.status == 502
    assert b"canary" not in told.reply.raw


async def test_litellm_38869_generate_content_is_no_way_around() -> None:
    """BerriAI/litellm#38869: generateContent was served unscanned."""
    await is_not_there(
        "/v1beta/models/gemini:generateContent", "/v1beta/models/gemini:streamGenerateContent",
        "/models/gemini:generateContent", "/v1/models/gemini:generateContent",
    )  # fmt: skip


@BOTH_WAYS
async def test_litellm_14152_the_responses_api_has_its_guard(is_streamed: bool) -> None:
    """BerriAI/litellm#14152: /v1/responses ran without guardrails."""
    told = await tell("responses", is_streamed=is_streamed)
    assert is_cut(told, "responses")
    assert told.reply.headers["x-weir-scanned"] == "full"


@pytest.mark.parametrize("door", ["messages", "responses"])
async def test_litellm_15718_prompts_and_answers_are_judged_at_each_door(door: str) -> None:
    """BerriAI/litellm#15718: at /v1/messages and /v1/responses only the prompt was checked."""
    blocked = await tell(door, "fine", guard=ScriptedGuard(prompt_level=UNSAFE), policy__prompt_check="before")
    assert (blocked.reply.status, blocked.asked) == (400, [])
    assert is_cut(await tell(door), door)


@pytest.mark.parametrize(
    "more",
    [
        {"guardrails": []},
        {"guardrails": ["another"]},
        {"guardrails": {}},
        {"metadata": {"guardrails": {}, "disable_global_guardrail": "true"}},
        {"disable_global_guardrails": True},
        {"policies": []},
    ],
    ids=str,
)
async def test_litellm_33944_naming_a_guardrail_turns_none_off(more: dict[str, Any]) -> None:
    """BerriAI/litellm#33944: naming another guardrail, or `{}`, switched the default ones off."""
    told = await tell(more=more)
    assert told.reply.status == 400 or is_cut(told)


KEY = "weir-" + "a" * 40
OURS: dict[str, Any] = {"auth__keys": f"app:{digest_of(KEY)}", "upstream__api_key": "sk-own"}


@pytest.mark.parametrize("host", ["x/?", "x/#", "localhost:4000/health?", "x/v1/models?"])
async def test_litellm_cve_2026_49468_the_host_decides_nothing(host: str) -> None:
    """CVE-2026-49468: rights were decided on a URL rebuilt from the Host header."""
    async with weir(ScriptedUpstream(answer(WORDS)), **OURS) as server:
        reply = await ask(server.url, http_request(headers={"Host": host}))
        assert reply.status in (400, 401, 421)
        assert server.upstream.requests == []


@pytest.mark.parametrize("key", [KEY[:20], KEY[:-1], KEY + "a", KEY[:20] + "b" * 25])
async def test_litellm_cve_2026_35030_the_beginning_of_a_key_is_no_key(key: str) -> None:
    """CVE-2026-35030: a cache keyed by the beginning of a token took one user for another."""
    async with weir(ScriptedUpstream(answer(WORDS)), **OURS) as server:
        for one, status in ((KEY, 200), (key, 401), (KEY, 200), (key, 401)):
            headers = {"authorization": f"Bearer {one}"}
            assert (await ask(server.url, http_request(headers=headers, stream=True))).status == status


@pytest.mark.parametrize(
    "key", ["' OR '1'='1", "x' UNION SELECT * FROM keys --", "%", "*", '{"$ne": null}', "${jndi:x}"]
)
async def test_litellm_cve_2026_42208_the_text_of_a_key_is_never_run(key: str) -> None:
    """CVE-2026-42208: the key of a request became part of a query."""
    async with weir(ScriptedUpstream(answer(WORDS)), **OURS) as server:
        reply = await ask(server.url, http_request(headers={"authorization": f"Bearer {key}"}))
        assert reply.status == 401
        assert key.encode() not in reply.body or len(key) == 1
        assert server.upstream.requests == []


@pytest.mark.parametrize("field", ["api_base", "base_url", "api_key", "custom_llm_provider", "model_info"])
async def test_litellm_cve_2024_6587_no_field_names_the_upstream(field: str) -> None:
    """CVE-2024-6587: `api_base` in a request sent it, and the server's key, anywhere."""
    async with ScriptedUpstream(answer(WORDS)).running() as canary:
        told = await tell(text="fine", more={field: canary.url}, upstream__api_key="sk-own")
        assert canary.requests == []
    assert told.reply.status in (200, 400)


async def test_litellm_pysec_2026_4070_not_even_a_nested_one() -> None:
    """PYSEC-2026-4070: `user_config` carried a whole routing table, its URLs included."""
    async with ScriptedUpstream(answer(WORDS)).running() as canary:
        params = {"model": "m", "api_base": canary.url}
        config = {"model_list": [{"model_name": "m", "litellm_params": params}]}
        for more in (
            {"user_config": config},
            {"metadata": {"user_config": json.dumps(config)}},
            {"litellm_params": params},
        ):
            told = await tell(text="fine", more=more)
            assert told.reply.status in (200, 400)
        assert canary.requests == []


async def test_litellm_cve_2026_35029_no_request_changes_the_settings() -> None:
    """CVE-2026-35029: /config/update was open to every key."""
    await is_not_there(
        "/config/update", "/config", "/config/yaml", "/guardrails", "/policy", "/model/new", "/key/generate"
    )


async def test_litellm_cve_2025_11203_health_tells_no_key() -> None:
    """CVE-2025-11203: the health endpoint returned API keys."""
    async with weir(ScriptedUpstream(answer(WORDS)), upstream__api_key="sk-canary") as server:
        await ask(server.url, stream=True)
        for path in ("/healthz", "/readyz", "/health", "/health/readiness"):
            reply = await ask(server.url, http_request(b"", method="GET", path=path))
            assert b"canary" not in reply.raw
            assert len(reply.body) < 256


async def test_litellm_35257_a_stream_of_messages_is_judged_and_the_record_tells_the_truth() -> None:
    """BerriAI/litellm#35257: chunks of an unknown type passed unscanned, and the log said success."""
    told = await tell("messages")
    assert is_cut(told, "messages")
    assert told.record["scanned"] == "full"
    assert told.record["channels"][0]["flagged"]
    unknown = [*text_block(0, "fine words"), sse_event({"type": "canary_delta", "text": "a canary"})]
    told = await tell("messages", chunks=message_events(unknown))
    assert b"a canary" not in told.reply.raw


async def test_litellm_35260_flagged_messages_are_withheld_not_followed_by_an_error() -> None:
    """BerriAI/litellm#35260: blocked output was streamed to the client in full."""
    blocks = [text_block(0, *FLAGGED), text_block(1, "more of it")]
    told = await tell("messages", chunks=message_events(*blocks))
    assert is_cut(told, "messages")
    assert b"more of it" not in told.reply.raw


@pytest.mark.parametrize("flagged", [0, 1, 2])
async def test_litellm_36611_every_choice_is_judged(flagged: int) -> None:
    """BerriAI/litellm#36611: only `choices[0]` was scanned."""
    chunks = [one for index in range(3) for one in parts(FLAGGED if index == flagged else "fine", index=index)]
    chunks += [*(chunk({}, "stop", index=index) for index in range(3)), DONE]
    told = await tell(chunks=chunks, more={"n": 3})
    finish = events(told.reply).finish
    assert finish == dict.fromkeys(range(3), "stop") | {flagged: "content_filter"}
    assert b"canary" not in told.reply.raw


async def test_litellm_35999_what_tools_are_told_and_what_they_say_is_read() -> None:
    """BerriAI/litellm#35999: tool_use arguments and tool_result contents of /v1/messages were not scanned."""
    call = {"type": "tool_use", "id": "t1", "name": "run", "input": {}}
    pieces = [{"type": "input_json_delta", "partial_json": part} for part in ('{"command": "a ca', 'nary sings"}')]
    told = await tell("messages", chunks=message_events(block_events(0, call, *pieces), stop="tool_use"))
    assert told.heard is not None
    assert told.heard.finish == DOORS["messages"].cut
    assert b"nary" not in told.reply.raw
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "the ship has sailed"}
    used = {"type": "tool_use", "id": "t1", "name": "run", "input": {"command": "look out"}}
    turns = [("user", "hello"), ("assistant", [used]), ("user", [result])]
    told = await tell("messages", "fine", more={"messages": [{"role": r, "content": c} for r, c in turns]})
    prompt = min(told.guard.fed, key=len)
    said = decoded(prompt)
    assert "the ship has sailed" in said
    assert "look out" in said


def decoded(ids: list[int]) -> str:
    return decode([one for one in ids if one < FIRST_CONTROL_ID])


async def test_litellm_26922_a_stream_is_checked_like_a_body() -> None:
    """BerriAI/litellm#26922: guardrails of a model did not run where the answer was streamed."""
    streamed, whole = await tell(more={"model": "special"}), await tell(more={"model": "special"}, is_streamed=False)
    assert is_cut(streamed)
    assert is_cut(whole)
    assert streamed.heard is not None
    assert whole.heard is not None
    assert streamed.heard.text == whole.heard.text


@EVERY_DOOR
async def test_litellm_38721_the_policy_that_is_named_was_applied(door: str) -> None:
    """BerriAI/litellm#38721: headers said which policy was applied while nothing had run."""
    told = await tell(door, policy__name="governed")
    assert told.reply.headers["x-weir-policy"] == told.record["policy"] == "governed"
    assert is_cut(told, door)
    assert len(told.guard.fed) >= 2


async def test_litellm_39036_the_finish_waits_for_the_tails_verdict() -> None:
    """BerriAI/litellm#39036: the chunk that ends a stream left before its text was checked."""
    chunks = [*parts("these words are fine, but a", " canary"), chunk({"content": " sings"}, "stop"), DONE]
    assert is_cut(await tell(chunks=chunks))


@pytest.mark.parametrize("status", ["failed", "incomplete"])
async def test_litellm_38734_a_response_that_dies_half_way_is_judged_to_there(status: str) -> None:
    """BerriAI/litellm#38734: response.failed and response.incomplete replayed their text unscanned."""
    told_events = response_events(message_item_events([FLAGGED[:20], FLAGGED[20:]]), status=status)
    told = await tell("responses", chunks=[sse_event(event) for event in told_events])
    assert b"canary" not in told.reply.raw
    assert told.record["outcome"] in ("cut", "error")


async def test_litellm_39281_what_a_tool_is_for_is_not_what_the_user_said() -> None:
    """BerriAI/litellm#39281: definitions of tools were judged as the user's words, and blocked."""
    function = {"name": "find", "description": "Finds a canary.", "parameters": {"type": "object", "properties": {}}}
    told = await tell(text="fine", more={"tools": [{"type": "function", "function": function}]})
    assert told.reply.status == 200
    assert all("Finds a" not in decoded(ids) for ids in told.guard.fed)
    assert told.asked


async def test_litellm_36894_a_test_of_the_guard_is_one() -> None:
    """BerriAI/litellm#36894: the endpoint that tests a guardrail passed without calling it."""
    said = json.dumps({"texts": ["hello"], "input_type": "request", "request_data": {}}).encode()
    for guard, expected in ((ScriptedGuard(prompt_level=UNSAFE), "BLOCKED"), (ScriptedGuard(), "NONE")):
        async with weir(guard=guard) as server:
            reply = await ask(server.url, http_request(said, path=GUARDRAIL))
        assert reply.json["action"] == expected
        assert guard.opened.is_set()
    async with weir(guard=ScriptedGuard(prompt_fault="raise")) as server:
        assert (await ask(server.url, http_request(said, path=GUARDRAIL))).status == 503


async def leaves(upstream: ScriptedUpstream, *, is_streamed: bool, mark: bytes | None = None) -> None:
    """A client that goes away, after it has read `mark`: the upstream is left at once."""
    async with weir(upstream) as server:
        async with connected(server.url) as client, asyncio.timeout(PATIENCE_SECONDS):
            await client.send(http_request(stream=is_streamed))
            await upstream.asked.wait()
            if mark is not None:
                await client.read_until(mark)
            client.leave()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await upstream.left.wait()
            if server.guard.slots:
                await server.guard.freed.wait()
    assert upstream.closed_early == 1


async def test_litellm_30245_a_client_that_leaves_in_mid_stream_ends_the_upstreams_work() -> None:
    """BerriAI/litellm#30245: the upstream went on generating for nobody."""
    await leaves(ScriptedUpstream(answer(WORDS), stall_at=5), is_streamed=True, mark=b" two")


async def test_litellm_31499_and_before_the_first_token() -> None:
    """BerriAI/litellm#31499: while the first token was awaited, nobody saw the client leave."""
    await leaves(ScriptedUpstream(answer(WORDS), first_byte_delay=3600), is_streamed=True)


async def test_litellm_30223_and_where_nothing_is_streamed() -> None:
    """BerriAI/litellm#30223: without streaming, cancelling was an option that was off."""
    await leaves(ScriptedUpstream([b"{}"], content_type=JSON, first_byte_delay=3600), is_streamed=False)


async def test_litellm_37140_and_in_the_middle_of_a_body() -> None:
    """BerriAI/litellm#37140: without streaming, the upstream is never told that the client has left."""
    upstream = ScriptedUpstream([b'{"id":', b'"x"}'], content_type=JSON, stall_at=1)
    await leaves(upstream, is_streamed=False)


async def test_litellm_19190_a_check_leaves_no_session_behind() -> None:
    """BerriAI/litellm#19190: every check of a guardrail opened an HTTP session that stayed."""
    async with weir(ScriptedUpstream(answer(WORDS))) as server:
        await ask(server.url, stream=True)
        before = len(asyncio.all_tasks())
        for _ in range(30):
            await ask(server.url, stream=True)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(asyncio.all_tasks()) > before + 1:  # noqa: ASYNC110 (a number that others change)
                await asyncio.sleep(0.01)
        assert server.guard.slots == 0


async def test_litellm_cve_2024_9606_no_part_of_a_key_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """CVE-2024-9606: a key was masked in the log but for most of its letters."""
    caplog.set_level(logging.DEBUG)
    key = "sk-abcdefghijklmnopqrstuvwxyz"
    told = await tell(headers={"authorization": f"Bearer {key}"})
    said = caplog.text + json.dumps(told.record)
    assert not [key[at : at + 6] for at in range(len(key) - 5) if key[at : at + 6] in said]


async def test_litellm_guardrail_logs_hold_no_headers() -> None:
    """docs.litellm.ai, guardrail_logging_secret_exposure (2026-03-18): the guardrail's log held raw request headers."""
    told = await tell(headers={"x-canary": "canary", "cookie": "a=canary", "authorization": "Bearer canary"})
    said = json.dumps(told.record)
    assert "canary" not in said
    assert "headers" not in said


def test_litellm_1_82_7_nothing_is_run_that_a_dependency_drops_into_the_environment() -> None:
    """litellm 1.82.7 and 1.82.8 on PyPI stole secrets: every version that Weir is built with is pinned."""
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in line for line in pins)
    assert not [line for line in pins if line.startswith("litellm")]
