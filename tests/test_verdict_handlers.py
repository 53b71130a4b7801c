"""Weir as the guard of others: OpenAI's moderations by its own client, and LiteLLM's guardrail."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from proxy.verdict_handlers import GUARDRAIL, MODERATIONS
from tests.fakes import CONTROVERSIAL, UNSAFE, ScriptedGuard, ScriptedUpstream, words
from tests.servers import Weir, recorded, weir
from tests.sockets import Reply, ask, http_request

USER = [{"role": "user", "content": "hello"}]


async def post(server: Weir, path: str, body: dict[str, Any]) -> Reply:
    reply = await ask(server.url, http_request(json.dumps(body).encode(), path=path))
    assert server.upstream.requests == []
    assert server.guard.slots == 0
    return reply


@pytest.mark.parametrize("given", ["hello", ["hello", "you"], [{"type": "text", "text": "hello"}]])
async def test_moderations_by_the_openai_client(given: Any) -> None:
    async with (
        weir(ScriptedUpstream(), ScriptedGuard(prompt_level=UNSAFE)) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as api,
    ):
        reply = await api.moderations.create(input=given, model="omni-moderation-latest")
        assert server.upstream.requests == []
    assert reply.model == "scripted"
    assert reply.id.startswith("modr-")
    assert len(reply.results) == (2 if given == ["hello", "you"] else 1)
    for result in reply.results:
        assert result.flagged
        assert result.categories.violence
        assert not result.categories.sexual
        assert not result.categories.violence_graphic
        assert result.category_scores.violence > 0.8
        assert result.category_applied_input_types.violence == ["text"]
        extra: Any = result.categories.model_extra
        assert extra["violent"]


async def test_a_safe_text_and_an_answer_within_a_conversation() -> None:
    async with weir(ScriptedUpstream(), ScriptedGuard(words("bad"))) as server:
        safe = await post(server, MODERATIONS, {"input": "hello"})
        said = await post(server, MODERATIONS, {"input": [*USER, {"role": "assistant", "content": "a bad bad word"}]})
    [result] = safe.json["results"]
    assert (result["flagged"], any(result["categories"].values())) == (False, False)
    assert result["category_scores"].keys() == result["categories"].keys()
    assert said.json["results"][0]["flagged"]
    assert safe.headers["x-weir-scanned"] == "full"


async def test_the_policy_says_what_counts() -> None:
    guard = ScriptedGuard(prompt_level=CONTROVERSIAL)
    for mode, flagged in (("loose", False), ("strict", True)):
        async with weir(ScriptedUpstream(), guard, policy__mode=mode) as server:
            reply = await post(server, MODERATIONS, {"input": "hello"})
        assert reply.json["results"][0]["flagged"] is flagged


async def test_images_are_refused() -> None:
    image = {"type": "image_url", "image_url": {"url": "http://x"}}
    async with (
        weir(ScriptedUpstream()) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as api,
    ):
        given: Any = [{"type": "text", "text": "a"}, image]
        with pytest.raises(openai.BadRequestError, match="only text can"):
            await api.moderations.create(input=given)
    async with weir(ScriptedUpstream(), policy__allow_unscanned=True) as server:
        reply = await post(server, MODERATIONS, {"input": given})
    assert reply.headers["x-weir-scanned"] == "partial"


@pytest.mark.parametrize("path", [MODERATIONS, GUARDRAIL])
async def test_without_a_guard_there_is_no_verdict(path: str) -> None:
    async with weir(ScriptedUpstream(), ScriptedGuard(prompt_fault="raise")) as server:
        with recorded() as records:
            reply = await post(server, path, {"input": "a", "input_type": "request", "texts": ["a"]})
        record = await records.next()
    assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "guard_unavailable", "1")
    assert (record["outcome"], record["scanned"], record["endpoint"]) == ("refused", "none", path)


async def test_litellm_is_told_to_block_or_not() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a":"bad bad"}'}}
    asks: list[tuple[dict[str, Any], str]] = [
        ({"input_type": "request", "texts": ["hello"]}, "NONE"),
        ({"input_type": "request", "texts": []}, "NONE"),
        ({"input_type": "response", "texts": ["fine"]}, "NONE"),
        ({"input_type": "response", "texts": ["fine", "a bad bad word"]}, "BLOCKED"),
        ({"input_type": "response", "texts": [], "tool_calls": [call]}, "BLOCKED"),
        ({"input_type": "response", "texts": ["bad bad"], "structured_messages": USER}, "BLOCKED"),
        ({"input_type": "request", "texts": ["hello"], "images": ["AAAA"]}, "BLOCKED"),
    ]
    more = {"request_data": {}, "litellm_call_id": "c", "additional_provider_specific_params": {}}
    async with weir(ScriptedUpstream(), ScriptedGuard(words("bad"))) as server:
        for body, action in asks:
            reply = await post(server, GUARDRAIL, body | more)
            assert (reply.status, reply.json["action"]) == (200, action), body
            assert ("blocked_reason" in reply.json) == (action == "BLOCKED")


async def test_litellm_is_told_to_block_a_prompt_by_policy() -> None:
    body = {"input_type": "request", "texts": ["hello"], "structured_messages": USER}
    for on_flag, action in (("block", "BLOCKED"), ("annotate", "NONE"), ("monitor", "NONE")):
        async with weir(ScriptedUpstream(), ScriptedGuard(prompt_level=UNSAFE), policy__on_flag=on_flag) as server:
            with recorded() as records:
                reply = await post(server, GUARDRAIL, body)
            record = await records.next()
        assert reply.json["action"] == action
        assert record["prompt_flagged"]
        assert record["outcome"] == ("cut" if action == "BLOCKED" else "complete")
    assert "Violent" in (await _reason())


async def _reason() -> str:
    async with weir(ScriptedUpstream(), ScriptedGuard(prompt_level=UNSAFE)) as server:
        reply = await post(server, GUARDRAIL, {"input_type": "request", "texts": ["a"]})
    reason: str = reply.json["blocked_reason"]
    return reason


@pytest.mark.parametrize("path", [MODERATIONS, GUARDRAIL])
async def test_what_cannot_be_read_is_a_400(path: str) -> None:
    async with weir(ScriptedUpstream()) as server:
        for body in ({}, {"input": [5], "input_type": 5}, {"input": [{"role": "nobody"}], "input_type": "x"}):
            reply = await post(server, path, body)
            assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
