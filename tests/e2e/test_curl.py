"""curl against the running server: status, headers and the very bytes of each outcome."""

import asyncio
import json
import shutil
import subprocess
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.driver import DONE, WORDS, answer, body, chunk
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels, words
from tests.servers import Weir, weir

CURL = shutil.which("curl")
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
CALL_SECONDS = 30
# What curl says of a body that stops before its end: "partial file", or a failure to receive.
BROKEN_OFF = (18, 56)

pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed")


@dataclass
class Got:
    exit_status: int
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[Any]:
        """Each event's data; asserts that its framing is the one we promise: a `data` line, LF and a blank line."""
        assert self.body.endswith(b"\n\n")
        blocks = self.body.decode().removesuffix("\n\n").split("\n\n")
        assert all(block.startswith("data: ") and "\n" not in block and "\r" not in block for block in blocks)
        return [block[6:] if block == "data: [DONE]" else json.loads(block[6:]) for block in blocks]


@asynccontextmanager
async def curl(server: Weir, ask: dict[str, Any], *more: str) -> AsyncIterator[Process]:
    """POST a request; the output begins with the response's head."""
    options = ["--silent", "--no-buffer", "--include", "--header", "content-type: application/json", *more]
    url = f"{server.base_url}/chat/completions"
    process = await asyncio.create_subprocess_exec(
        CURL or "curl", *options, "--data", json.dumps(ask), url, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def post(
    chunks: Sequence[Any], guard: ScriptedGuard | None = None, *, streams: bool = True, n: int = 1, **settings: Any
) -> Got:
    upstream = ScriptedUpstream(chunks, content_type="text/event-stream" if streams else "application/json")
    async with weir(upstream, guard, **settings) as server, curl(server, ASK | {"stream": streams, "n": n}) as process:
        printed, _ = await asyncio.wait_for(process.communicate(), CALL_SECONDS)
        assert process.returncode is not None
    head, _, content = printed.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Got(process.returncode, int(first.split()[1]), headers, content)


def text_of(events: list[Any]) -> str:
    chunks = [event for event in events if event != "[DONE]" and "choices" in event]
    return "".join(choice["delta"].get("content") or "" for event in chunks for choice in event["choices"])


async def test_events_arrive_while_the_upstream_still_speaks() -> None:
    upstream = ScriptedUpstream(answer(WORDS), stall_at=6)
    guard = ScriptedGuard()
    async with weir(upstream, guard) as server, curl(server, ASK | {"stream": True}) as process:
        assert process.stdout is not None
        async with asyncio.timeout(CALL_SECONDS):
            while b" three" not in await process.stdout.readline():
                pass
        assert process.returncode is None
        assert upstream.closed_early == 0
        process.kill()
        await process.wait()
        async with asyncio.timeout(CALL_SECONDS):
            await upstream.left.wait()
            await guard.freed.wait()
        assert (guard.slots, upstream.closed_early) == (0, 1)


async def test_a_safe_answer_has_the_headers_of_an_event_stream() -> None:
    got = await post(answer(WORDS))
    assert (got.exit_status, got.status) == (0, 200)
    assert got.headers["content-type"] == "text/event-stream"
    assert got.headers["cache-control"] == "no-cache, no-transform"
    assert got.headers["x-accel-buffering"] == "no"
    assert got.headers["transfer-encoding"] == "chunked"
    assert got.headers["x-weir-scanned"] == "full"
    assert got.headers["x-weir-guard"] == "scripted@0"
    assert got.headers["x-weir-policy"] == "default"
    assert got.headers["x-weir-request-id"].startswith("weir-")
    assert "content-encoding" not in got.headers
    assert text_of(got.events) == "".join(WORDS)
    assert got.events[-1] == "[DONE]"


async def test_what_the_upstream_frames_oddly_leaves_in_our_framing() -> None:
    odd = b"\xef\xbb\xbf: hello\r\nretry: 1\r\nid: 7\r\nevent: message\r\n"
    chunks = [odd, *(one.replace(b"\n", b"\r\n") for one in answer(WORDS)[:-1]), b"\r\n: bye\r\n\r\n", DONE]
    got = await post(chunks)
    assert text_of(got.events) == "".join(WORDS)  # `events` asserts the framing
    assert got.events[-1] == "[DONE]"


async def test_a_cut_is_a_clean_end() -> None:
    got = await post(answer(WORDS), ScriptedGuard(labels("SSUU")), policy__notice="[stopped]")
    assert (got.exit_status, got.status) == (0, 200)
    assert text_of(got.events) == "one two[stopped]"
    *_, cut, done = got.events
    assert done == "[DONE]"
    head = {name: cut[name] for name in ("id", "object", "created", "model")}
    assert head == {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    [choice] = cut["choices"]
    assert choice == {
        "index": 0,
        "delta": {"content": "[stopped]"},
        "logprobs": None,
        "finish_reason": "content_filter",
    }
    block = cut["weir"]
    assert (block["action"], block["risk_level"], block["category"]) == ("block", "Unsafe", "Violent")
    assert (block["channel"], block["offset"]) == ("content", len("one two"))


async def test_a_cut_body_is_one_object() -> None:
    guard = ScriptedGuard(labels("SSUU"))
    got = await post([body({"content": "".join(WORDS)})], guard, streams=False, policy__notice="")
    assert (got.exit_status, got.status) == (0, 200)
    assert got.headers["content-type"].startswith("application/json")
    assert int(got.headers["content-length"]) == len(got.body)
    [choice] = json.loads(got.body)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", "content_filter")


@pytest.mark.parametrize("streams", [True, False])
async def test_a_blocked_prompt_is_a_400_in_json(streams: bool) -> None:
    got = await post(answer(WORDS), ScriptedGuard(prompt_level=UNSAFE), streams=streams)
    assert (got.exit_status, got.status) == (0, 400)
    assert got.headers["content-type"].startswith("application/json")
    assert got.headers["x-should-retry"] == "false"
    error = json.loads(got.body)["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "messages", "content_filter")
    assert error["innererror"]["code"] == "ResponsibleAIPolicyViolation"


async def test_a_failing_guard_breaks_the_stream_off() -> None:
    got = await post(answer(WORDS), ScriptedGuard(fails_after=12))
    assert got.exit_status in BROKEN_OFF
    assert got.status == 200
    assert b"[DONE]" not in got.body
    assert "error" in got.events[-1]
    assert "choices" not in got.events[-1]


@pytest.mark.parametrize("chunks", [answer(WORDS)[:-2], [*answer(WORDS)[:5], b"data: {\n\n"]], ids=["ends", "garbles"])
async def test_a_failing_upstream_breaks_the_stream_off(chunks: list[bytes]) -> None:
    got = await post(chunks)
    assert got.exit_status in BROKEN_OFF
    assert b"[DONE]" not in got.body
    assert "error" in got.events[-1]
    assert "".join(WORDS).startswith(text_of(got.events))


async def test_a_guard_that_is_gone_is_a_503_before_the_first_byte() -> None:
    got = await post(answer(WORDS), ScriptedGuard(fails_after=-1))
    assert (got.exit_status, got.status) == (0, 503)
    assert "error" in json.loads(got.body)


async def test_http_1_0_gets_no_chunk_sizes_in_its_body() -> None:
    upstream = ScriptedUpstream([*answer(WORDS)[:-1], DONE])
    async with weir(upstream) as server, curl(server, ASK | {"stream": True}, "--http1.0") as process:
        printed, _ = await asyncio.wait_for(process.communicate(), CALL_SECONDS)
    head, _, content = printed.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert text_of(Got(0, 200, {}, content).events) == "".join(WORDS)


async def test_a_heartbeat_stands_before_the_next_event_without_a_blank_line() -> None:
    upstream = ScriptedUpstream(answer(["one", " two"]), pause=0.3)
    async with (
        weir(upstream, server__heartbeat_seconds=0.1) as server,
        curl(server, ASK | {"stream": True}) as process,
    ):
        printed, _ = await asyncio.wait_for(process.communicate(), CALL_SECONDS)
    content = printed.partition(b"\r\n\r\n")[2]
    assert b": hb\n" in content
    assert b": hb\n\n" not in content
    lines = [line for line in content.split(b"\n") if line and not line.startswith(b"data: ")]
    assert set(lines) == {b": hb"}


async def test_a_cut_choice_leaves_the_other_alone() -> None:
    pairs = zip(WORDS, ["fine", *WORDS[1:]], strict=True)
    chunks = [chunk({"content": text}, index=index) for pair in pairs for index, text in enumerate(pair)]
    ends = [chunk({}, "stop", index=index) for index in range(2)]
    guard = ScriptedGuard(words("one two three"))
    got = await post([*chunks, *ends, DONE], guard, policy__notice="", n=2)
    assert got.exit_status == 0
    choices = [choice for event in got.events[:-1] for choice in event["choices"]]
    reasons = {choice["index"]: choice["finish_reason"] for choice in choices if choice["finish_reason"]}
    assert reasons == {0: "content_filter", 1: "stop"}
    texts = ["".join(c["delta"].get("content") or "" for c in choices if c["index"] == index) for index in range(2)]
    assert texts == ["one two", "fine" + "".join(WORDS[1:])]
    assert got.events[-1] == "[DONE]"
