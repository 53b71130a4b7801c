"""One request from its prompt to its record, without a client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.base import Note
from proxy.chat_request import read_chat_request
from proxy.collected import Collected
from proxy.config import load_settings
from proxy.dialects import call_of
from proxy.errors import INTERNAL, ApiError
from proxy.exchange import Ask, Exchange, Service
from proxy.policies import Policies
from proxy.prompts import PromptBlocked
from proxy.records import Record, RequestOutcome, Scanned
from proxy.request_body import dump
from proxy.request_fields import Terms
from proxy.server_settings import ServerSettings
from tests.driver import WORDS, answer, body, read
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels
from tests.servers import opened
from tests.sockets import ASK, PATIENCE_SECONDS

TEXT = "".join(WORDS)
Made = tuple[Exchange, Record]


@asynccontextmanager
async def exchange(
    upstream: ScriptedUpstream, guard: ScriptedGuard, fields: dict[str, Any] | None = None, **overrides: Any
) -> AsyncIterator[Made]:
    async with upstream.running():
        values = {name.replace("__", "."): value for name, value in overrides.items()}
        settings = load_settings(overrides={"upstream.base_url": upstream.url} | values, environ={})
        async with opened(settings) as upstreams:
            service = Service(settings, Policies(settings), guard, upstreams)
            record = Record("weir-1", "/v1/chat/completions", "default", "g@1")
            request = read_chat_request({**ASK, "stream": True, **(fields or {})}, Terms(ServerSettings()))
            upstream_of_m = upstreams.of_model("m")
            call = call_of(request, record.endpoint, "", upstream_of_m.settings)
            asked = Ask(record.endpoint, request, service.policies.default, upstream_of_m, {}, call)
            async with Exchange(service, record, asked, dump(call.body or {})) as made:
                yield made, record
    assert guard.slots == 0


async def run(made: Exchange) -> bytes:
    client = Collected()
    await made.begin()
    await made.run(client)
    return b"".join(client.chunks)


async def test_an_answer_and_its_record() -> None:
    upstream = ScriptedUpstream(answer(WORDS))
    async with exchange(upstream, ScriptedGuard()) as (made, record):
        assert read(await run(made)).content == TEXT
        await made.finish()
        assert made.scanned is Scanned.FULL
    [channel] = record.channels
    assert record.outcome is RequestOutcome.COMPLETE
    assert channel.received == channel.scanned == channel.delivered == len(TEXT)
    assert channel.tokens == len(WORDS)
    assert record.prompt_tokens > 3
    assert record.upstream_first_byte_seconds is not None
    assert record.guard_lag_p50_seconds is not None


async def test_a_cut_and_its_record() -> None:
    async with exchange(ScriptedUpstream(answer(WORDS), stall_at=9), ScriptedGuard(labels("SSUU"))) as (made, record):
        assert read(await run(made)).finish == {0: "content_filter"}
    [channel] = record.channels
    assert record.outcome is RequestOutcome.CUT
    assert channel.delivered == len("one two")
    assert channel.flagged is not None
    assert channel.flagged.start == channel.delivered
    assert record.scanned is Scanned.FULL


async def test_leaving_before_the_end_is_a_client_gone() -> None:
    upstream = ScriptedUpstream(answer(WORDS), stall_at=4)
    async with exchange(upstream, ScriptedGuard()) as (made, record):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await run(made)
    assert record.outcome is RequestOutcome.CLIENT_GONE
    assert record.scanned is Scanned.FULL


@pytest.mark.parametrize("check", ["parallel", "before"])
async def test_a_blocked_prompt_frees_the_upstream(check: str) -> None:
    upstream = ScriptedUpstream(answer(WORDS), stall_at=0)
    guard = ScriptedGuard(prompt_level=UNSAFE, prompt_delay=0.1)
    async with exchange(upstream, guard, policy__prompt_check=check) as (made, record):
        with pytest.raises(PromptBlocked) as caught:
            await made.begin()
        assert isinstance(caught.value.note, Note)
    assert record.prompt_flagged
    assert record.scanned is Scanned.FULL
    assert len(upstream.requests) == (check == "parallel")
    if check == "parallel":
        async with asyncio.timeout(PATIENCE_SECONDS):
            await upstream.left.wait()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_blocked_prompt_can_be_answered(stream: bool) -> None:
    fields = {"stream": stream, "n": 2, "stream_options": {"include_usage": True} if stream else None}
    async with exchange(ScriptedUpstream(), ScriptedGuard(prompt_level=UNSAFE), fields) as (made, _):
        with pytest.raises(PromptBlocked) as caught:
            await made.begin()
        sent = b"".join(made.blocked_answer(caught.value))
    assert sent.count(b"content_filter") == 2
    if stream:
        found = read(sent)
        assert found.is_done
        assert found.finish == {0: "content_filter", 1: "content_filter"}
        assert [event["usage"]["completion_tokens"] for event in found.events if "usage" in event] == [0]


async def test_when_both_sides_fail_one_error_comes_out() -> None:
    guard = ScriptedGuard(prompt_fault="raise", prompt_delay=0.05)
    async with exchange(ScriptedUpstream(first_byte_delay=3600), guard, upstream__first_byte_seconds=0.05) as (made, _):
        with pytest.raises(ApiError) as caught:
            await made.begin()
    assert caught.value.status in (503, 504)


async def test_a_request_that_is_cancelled_while_both_sides_work_frees_both() -> None:
    upstream, guard = ScriptedUpstream(first_byte_delay=3600), ScriptedGuard(prompt_delay=3600)
    async with exchange(upstream, guard) as (made, record):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(made.begin())
            await upstream.asked.wait()
            task.cancel()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await upstream.left.wait()
    assert record.scanned is Scanned.NONE


async def test_unscanned_parts_are_said() -> None:
    image = {"type": "image_url", "image_url": {"url": "http://x"}}
    fields = {"messages": [{"role": "user", "content": [image, {"type": "text", "text": "hi"}]}]}
    async with exchange(ScriptedUpstream(answer(WORDS)), ScriptedGuard(), fields, policy__allow_unscanned=True) as (
        made,
        record,
    ):
        await run(made)
        assert made.scanned is Scanned.PARTIAL
    assert record.scanned is Scanned.PARTIAL
    assert record.unscanned_parts


async def test_a_watched_prompt_is_never_refused_for_its_parts_or_its_length() -> None:
    image = {"type": "image_url", "image_url": {"url": "http://x"}}
    fields = {"messages": [{"role": "user", "content": [image, {"type": "text", "text": "hi"}]}]}
    guard = ScriptedGuard(prompt_fault="raise")
    async with exchange(ScriptedUpstream(answer(WORDS)), guard, fields, policy__on_flag="monitor") as (made, record):
        assert read(await run(made)).content == TEXT
    assert record.scanned is Scanned.NONE
    assert record.outcome is RequestOutcome.COMPLETE


async def test_a_client_that_asks_to_block_ends_the_mere_watching() -> None:
    wish = {"model": "m", "policy": {"output": {"mode": "block"}}}
    guard = ScriptedGuard(prompt_fault="raise")
    async with exchange(ScriptedUpstream(), guard, {"moderation": wish}, policy__on_flag="monitor") as (made, _):
        with pytest.raises(ApiError) as caught:
            await made.begin()
    assert caught.value.status == 503


async def test_last_words_are_in_the_dialect_of_the_answer() -> None:
    async with exchange(ScriptedUpstream(answer(WORDS)), ScriptedGuard()) as (made, _):
        await run(made)
        assert read(made.encode_failure(INTERNAL)).error == {
            "message": INTERNAL.message,
            "type": "api_error",
            "param": None,
            "code": "internal_error",
        }


async def test_a_body_takes_the_same_way() -> None:
    upstream = ScriptedUpstream([body({"content": TEXT})], content_type="application/json")
    async with exchange(upstream, ScriptedGuard(labels("SSUU")), {"stream": False}, policy__notice="") as (
        made,
        record,
    ):
        assert b'"content":"one two"' in await run(made)
    assert record.outcome is RequestOutcome.CUT
