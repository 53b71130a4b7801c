"""Which notations an answer is told in, and that real clients read it in each of them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import combinations
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from adapters.base import Notations
from proxy.annotations import NOTATIONS, asked_notations, notations_of
from proxy.errors import ApiError
from proxy.policy import Action, Policy
from proxy.policy_settings import PolicySettings
from proxy.settings import AnnotationSettings
from tests.driver import WORDS, answer, body
from tests.fakes import CONTROVERSIAL, UNSAFE, Rule, ScriptedGuard, ScriptedUpstream, all_safe, labels
from tests.servers import weir
from tests.sockets import ask, http_request

ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TEXT = "".join(WORDS)
SETS = [frozenset(names) for size in range(4) for names in combinations(NOTATIONS, size)]


def names_of(notations: Notations) -> frozenset[str]:
    return frozenset(name for name in NOTATIONS if getattr(notations, name))


@pytest.mark.parametrize("asked", SETS)
@pytest.mark.parametrize("own", [None, *SETS])
def test_a_client_adds_notations_and_takes_none_away(own: frozenset[str] | None, asked: frozenset[str]) -> None:
    policy = PolicySettings.model_validate({"annotations": None if own is None else sorted(own)})
    base = frozenset({"weir"}) if own is None else own
    assert names_of(notations_of(AnnotationSettings(), policy, Policy(), asked)) == base | asked
    closed = AnnotationSettings(client_may_ask=False)
    assert names_of(notations_of(closed, policy, Policy(), asked)) == base
    watching = Policy(on_flag=Action.MONITOR)
    assert names_of(notations_of(AnnotationSettings(), policy, watching, asked)) == frozenset()


def test_names_are_read_from_any_number_of_headers() -> None:
    assert asked_notations([]) == frozenset()
    assert asked_notations([" Weir,azure", "", "openai,"]) == {"weir", "azure", "openai"}
    assert asked_notations(["azure"], wants_moderation=True) == {"azure", "openai"}
    with pytest.raises(ApiError) as caught:
        asked_notations(["weird"])
    assert (caught.value.status, caught.value.param) == (400, "x-weir-annotations")


@asynccontextmanager
async def client(rule: Rule = all_safe, *, is_body: bool = False, **settings: Any) -> AsyncIterator[AsyncOpenAI]:
    chunks, kind = ([body({"content": TEXT})], "application/json") if is_body else (answer(WORDS), "text/event-stream")
    async with (
        weir(ScriptedUpstream(chunks, content_type=kind), ScriptedGuard(rule, CONTROVERSIAL), **settings) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as api,
    ):
        yield api


ENDS = [(all_safe, "stop", False), (labels("SSUU"), "content_filter", True)]


@pytest.mark.parametrize(("rule", "finish", "is_cut"), ENDS)
async def test_openais_client_reads_azures_notation_in_a_stream(rule: Rule, finish: str, is_cut: bool) -> None:
    async with client(rule, annotations__azure=True, annotations__openai=True, policy__notice="") as api:
        text, offsets, last = "", [], None
        async for chunk in await api.chat.completions.create(**ASK, stream=True):
            for choice in chunk.choices:
                assert choice.delta is not None
                text += choice.delta.content or ""
                extra = choice.model_extra or {}
                if choice.delta.content:
                    assert extra["content_filter_results"]["violence"]["severity"] in ("safe", "high")
                    offsets.append(extra["content_filter_offsets"])
                last = (choice, extra, chunk.model_extra or {}, chunk) if choice.finish_reason else last
    assert last is not None
    choice, extra, more, chunk = last
    assert choice.finish_reason == finish
    assert text == ("one two" if is_cut else TEXT)
    severity = {"filtered": is_cut, "severity": "high" if is_cut else "safe"}
    assert extra["content_filter_results"]["violence"] == severity
    [prompt] = more["prompt_filter_results"]
    assert prompt["content_filter_results"]["violence"] == {"filtered": False, "severity": "medium"}
    assert chunk.moderation.output.results[0].flagged is is_cut
    starts = [one["start_offset"] for one in offsets]
    assert starts == sorted(starts)
    assert all(one["start_offset"] <= one["end_offset"] for one in offsets)
    assert offsets[-1]["end_offset"] == len(text)


@pytest.mark.parametrize(("rule", "finish", "is_cut"), ENDS)
async def test_openais_client_reads_azures_notation_in_a_body(rule: Rule, finish: str, is_cut: bool) -> None:
    async with client(rule, is_body=True, policy__notice="") as api:
        reply = await api.chat.completions.create(**ASK, extra_headers={"x-weir-annotations": "azure"})
    [choice] = reply.choices
    assert (choice.finish_reason, choice.message.content) == (finish, "one two" if is_cut else TEXT)
    results = (choice.model_extra or {})["content_filter_results"]
    assert results["violence"]["filtered"] is is_cut
    [prompt] = (reply.model_extra or {})["prompt_filter_results"]
    assert prompt["prompt_index"] == 0


async def test_openais_helper_reads_a_stream_in_all_three() -> None:
    asks = {"x-weir-annotations": "weir, openai, azure"}
    async with client() as api, api.chat.completions.stream(**ASK, extra_headers=asks) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == TEXT


async def test_completions_have_it_too() -> None:
    text = b'data: {"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"text":"one two",'
    chunks = [text + b'"index":0,"logprobs":null,"finish_reason":null}]}\n\n']
    chunks += [chunks[0].replace(b"one two", b"").replace(b'reason":null', b'reason":"stop"'), b"data: [DONE]\n\n"]
    asks = {"x-weir-annotations": "azure"}
    async with (
        weir(ScriptedUpstream(chunks), ScriptedGuard()) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as api,
    ):
        stream = await api.completions.create(model="m", prompt="hello", stream=True, extra_headers=asks)
        found = [choice async for event in stream for choice in event.choices]
    assert "".join(choice.text for choice in found) == "one two"
    assert all("content_filter_results" in (choice.model_extra or {}) for choice in found if choice.text)


async def test_a_route_is_told_in_its_policys_notations() -> None:
    settings: dict[str, Any] = {
        "policies__quiet__annotations": [],
        "policies__azure__annotations": ["azure"],
        "rules": [{"policy": "quiet", "models": ["q"]}, {"policy": "azure", "models": ["a"]}],
    }
    wish = {"x-weir-annotations": "weir"}
    async with weir(ScriptedUpstream(answer(WORDS)), ScriptedGuard(), **settings) as server:
        quiet, azure, whole, more = [
            (await ask(server.url, http_request(headers=headers, stream=True, model=model))).body
            for model, headers in (("q", {}), ("a", {}), ("m", {}), ("q", wish))
        ]
        refused = await ask(server.url, http_request(headers={"x-weir-annotations": "loud"}))
        assert "x-weir-annotations" not in json.dumps([dict(seen["headers"]) for seen in server.upstream.requests])
    assert b'"weir"' not in quiet + azure
    assert b"content_filter_results" in azure
    assert b"content_filter_results" not in quiet + whole + more
    assert b'"weir"' in whole
    assert b'"weir"' in more
    assert refused.status == 400


async def test_a_blocked_prompt_reads_as_ever_in_azures_notation() -> None:
    async with (
        weir(ScriptedUpstream(answer(WORDS)), ScriptedGuard(prompt_level=UNSAFE), annotations__azure=True) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as api,
    ):
        with pytest.raises(openai.BadRequestError):
            await api.chat.completions.create(**ASK, stream=True)
