"""Whatever the upstream or the guard does, a client can tell a whole answer, a cut one and a broken one apart."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from tests.driver import DONE, WORDS, Read, answer, body, chunk, read
from tests.fakes import UNSAFE, RawUpstream, ScriptedGuard, ScriptedUpstream, framed, labels
from tests.servers import recorded, weir
from tests.sockets import Reply, ask, timed

TEXT = "".join(WORDS)
ANSWER = answer(WORDS)
JSON = "application/json"


def outcome(reply: Reply) -> str:
    """complete, cut, error or refused: what a client takes it for. Anything else fails."""
    if reply.status != 200:
        assert reply.is_complete
        assert reply.error["message"]
        return "refused"
    found = events(reply)
    if found.error is not None:
        assert not found.is_done
        assert not reply.is_complete, "a broken answer must not look like a whole one"
        return "error"
    assert found.is_done
    assert reply.is_complete
    return "cut" if "content_filter" in found.finish.values() else "complete"


def events(reply: Reply) -> Read:
    """Without heartbeats, and without the error's own event, which has no choices."""
    lines = [line for line in reply.body.decode().split("\n") if not line.startswith(":")]
    return read("\n".join(lines).encode())


# The upstream.


async def test_an_upstream_that_refuses_connections_is_a_502_told_at_once() -> None:
    async with weir(upstream__base_url="http://127.0.0.1:1") as server:
        with timed():
            reply = await ask(server.url, stream=True)
    assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")


BODIES = {
    "JSON": b'{"error":{"message":"You have no credit.","type":"insufficient_quota","code":"insufficient_quota"}}',
    "HTML": b"<html><body><h1>Oops</h1></body></html>",
    "empty": b"",
    "huge": b'{"error":{"message":"' + b"x" * (1 << 20) + b'"}}',
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 429, 500, 502, 503, 529])
async def test_a_refusal_keeps_its_status_and_loses_what_nobody_judged(status: int, kind: str) -> None:
    upstream = ScriptedUpstream(
        [BODIES[kind]], status=status, content_type=JSON, headers={"retry-after": "7", "set-cookie": "a=b"}
    )
    async with weir(upstream) as server:
        with recorded() as records:
            reply = await ask(server.url, stream=True)
    assert reply.status == status
    assert reply.headers["retry-after"] == "7"
    assert "set-cookie" not in reply.headers
    assert len(reply.body) < 4096
    assert b"<h1>" not in reply.body
    if kind == "JSON":
        assert reply.error["message"] == "You have no credit."
        assert reply.error["code"] == "insufficient_quota"
    assert (await records.next())["outcome"] == "refused"
    assert server.guard.slots == 0


async def test_a_refusal_that_quotes_flagged_text_loses_its_message() -> None:
    upstream = ScriptedUpstream([b'{"error":{"message":"one two three four"}}'], status=400, content_type=JSON)
    async with weir(upstream, ScriptedGuard(labels("SUUS"))) as server:
        reply = await ask(server.url)
    assert reply.status == 400
    assert b"two" not in reply.body


async def test_what_is_said_of_our_own_key_is_not_the_clients_to_read() -> None:
    upstream = ScriptedUpstream([b'{"error":{"message":"Bad key sk-abc."}}'], status=401, content_type=JSON)
    async with weir(upstream, upstream__api_key="sk-ours") as server:
        reply = await ask(server.url)
    assert reply.status == 401
    assert b"sk-abc" not in reply.body


@pytest.mark.parametrize("stall_at", [0, 1])
async def test_a_refusal_whose_body_stalls_still_is_one(stall_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.upstream.ERROR_SECONDS", 0.2)
    upstream = ScriptedUpstream([b'{"error":', b"1"], status=429, content_type=JSON, stall_at=stall_at)
    async with weir(upstream) as server:
        with timed():
            assert (await ask(server.url)).status == 429


async def test_a_refusal_that_breaks_off_still_is_one() -> None:
    reply = b'HTTP/1.1 503 X\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"error"'
    async with weir(RawUpstream(reply)) as server:
        assert (await ask(server.url)).status == 503


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    canary = ScriptedUpstream()
    async with canary.running():
        location = {"location": f"{canary.url}/v1/chat/completions"}
        async with weir(ScriptedUpstream(status=status, headers=location)) as server:
            reply = await ask(server.url)
    assert reply.status == 502
    assert canary.requests == []


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("content_type", ["text/html", "text/plain", "other", "application/octet-stream"])
async def test_another_content_type_than_asked_for_is_a_502(content_type: str, is_streamed: bool) -> None:
    if content_type == "other":
        content_type = JSON if is_streamed else "text/event-stream"
    async with weir(ScriptedUpstream(ANSWER, content_type=content_type)) as server:
        reply = await ask(server.url, stream=is_streamed)
    assert (reply.status, reply.error["code"]) == (502, "upstream_unreadable")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_not_an_http_response_is_a_502_asked_for_once(raw: bytes) -> None:
    upstream = RawUpstream(raw)
    async with weir(upstream) as server:
        assert (await ask(server.url)).status == 502
    assert upstream.hits == 1


async def test_what_comes_before_the_answer_is_skipped() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with weir(RawUpstream(early + framed(b"".join(ANSWER), "chunked"))) as server:
        assert events(await ask(server.url, stream=True)).content == TEXT


@pytest.mark.parametrize("resets", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_an_answer_cut_between_its_events_is_complete_only_after_its_finish(framing: str, resets: bool) -> None:
    upstream = RawUpstream(resets=resets)
    async with weir(upstream) as server:
        whole = framed(b"".join(ANSWER), framing, size=len(ANSWER[1]))
        for number in range(len(ANSWER) + 1):
            sent = b"".join(ANSWER[:number])
            upstream.reply = framed(sent, "close") if framing == "close" else whole[: whole.index(b"\r\n\r\n") + 4]
            if framing == "length":
                upstream.reply += sent
            elif framing == "chunked":
                upstream.reply += b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in ANSWER[:number])
            expected = "complete" if number >= len(ANSWER) - 1 else "error"
            check_cut(await ask(server.url, stream=True), expected, is_exact=not resets)
        assert server.guard.slots == 0


def check_cut(reply: Reply, expected: str, *, is_exact: bool = True) -> None:
    found = outcome(reply)
    if is_exact:
        assert found == ("refused" if expected == "error" and reply.status == 502 else expected)
    else:  # a reset may overtake the bytes before it
        assert found == expected or found in ("refused", "error")
    if reply.status == 200:
        assert TEXT.startswith(events(reply).content)
        assert found != "complete" or events(reply).content == TEXT


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_an_answer_cut_at_any_byte_is_complete_only_after_its_finish(framing: str) -> None:
    parts = [chunk({"role": "assistant", "content": "one"}), chunk({"content": " two"}, "stop"), DONE]
    stream = b"".join(parts)
    raw = framed(stream, framing, size=97)
    finished = len(parts[0] + parts[1])
    upstream = RawUpstream()
    async with weir(upstream) as server:
        for end in range(raw.index(b"\r\n\r\n") + 4, len(raw), 2):
            upstream.reply = raw[:end]
            is_finished = len(payload(raw[:end], framing)) >= finished
            reply = await ask(server.url, stream=True)
            assert outcome(reply) in ({"complete"} if is_finished else {"error", "refused"}), end
            if reply.status == 200:
                assert "one two".startswith(events(reply).content)
        assert server.guard.slots == 0


def payload(raw: bytes, framing: str) -> bytes:
    rest = raw.partition(b"\r\n\r\n")[2]
    if framing != "chunked":
        return rest
    found = b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size, 16)
        found, rest = found + rest[:count], rest[count + 2 :]
    return found


@pytest.mark.parametrize(
    ("settings", "upstream", "expected"),
    [
        ({"upstream__first_byte_seconds": 0.2}, ScriptedUpstream(ANSWER, first_byte_delay=3600), (504, None)),
        ({"upstream__idle_seconds": 0.2}, ScriptedUpstream(ANSWER, stall_at=0), (504, None)),
        ({"upstream__idle_seconds": 0.2}, ScriptedUpstream(ANSWER, stall_at=4), (200, "upstream_timeout")),
        ({"upstream__total_seconds": 0.4}, ScriptedUpstream(ANSWER, pause=0.1), (200, "total_timeout")),
    ],
    ids=["head", "first event", "middle", "total"],
)
async def test_a_stall_ends_at_its_deadline(settings: Any, upstream: ScriptedUpstream, expected: Any) -> None:
    async with weir(upstream, **settings) as server:
        with timed():
            reply = await ask(server.url, stream=True)
        await server.upstream.left.wait()
        assert server.guard.slots == 0
    assert reply.status == expected[0]
    if expected[1]:
        assert outcome(reply) == "error"
        assert (events(reply).error or {})["code"] == expected[1]


async def test_an_endless_upstream_is_stopped_though_it_never_pauses() -> None:
    endless = ScriptedUpstream([chunk({"content": " word"})] * 100_000)
    async with weir(endless, upstream__total_seconds=0.5) as server:
        with timed():
            assert outcome(await ask(server.url, stream=True)) == "error"
        await endless.left.wait()


async def test_compression_that_nobody_asked_for_is_undone() -> None:
    squeezed = gzip.compress(b"".join(ANSWER))
    async with weir(ScriptedUpstream([squeezed], headers={"content-encoding": "gzip"})) as server:
        assert events(await ask(server.url, stream=True)).content == TEXT
    async with weir(ScriptedUpstream([squeezed[:40]], headers={"content-encoding": "gzip"})) as server:
        assert outcome(await ask(server.url, stream=True)) in ("error", "refused")


async def test_a_compressed_bomb_is_refused() -> None:
    bomb = gzip.compress(b"data: " + b"x" * (64 << 20))
    async with weir(ScriptedUpstream([bomb], headers={"content-encoding": "gzip"})) as server:
        assert outcome(await ask(server.url, stream=True)) in ("error", "refused")


@pytest.mark.parametrize("bad", [b"x" * 70_000, b"data: {\n\n", b'data: {"choices":[{"index":9}]}\n\n'])
async def test_an_event_that_cannot_be_read_ends_the_answer_as_an_error(bad: bytes) -> None:
    async with weir(ScriptedUpstream([*ANSWER[:4], bad, *ANSWER[4:]]), upstream__max_event_bytes=65_536) as server:
        reply = await ask(server.url, stream=True)
        assert outcome(reply) == "error"
        assert TEXT.startswith(events(reply).content)
        await server.guard.freed.wait()


async def test_an_error_event_in_the_middle_is_told_in_our_words() -> None:
    error = b'data: {"error":{"message":"canary","code":"canary"}}\n\n'
    async with weir(ScriptedUpstream([*ANSWER[:4], error])) as server:
        reply = await ask(server.url, stream=True)
    assert outcome(reply) == "error"
    assert b"canary" not in reply.raw


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"{}", b'{"choices":[]} x', b"x" * (1 << 20)])
async def test_a_body_that_cannot_be_read_is_a_502(data: bytes) -> None:
    async with weir(ScriptedUpstream([data], content_type=JSON), upstream__max_body_bytes=65_536) as server:
        reply = await ask(server.url)
        assert server.guard.slots == 0
    assert reply.status == 502


async def test_a_body_that_breaks_off_is_a_502() -> None:
    raw = framed(body({"content": TEXT}), "length", JSON)
    async with weir(RawUpstream(raw[:-9])) as server:
        assert (await ask(server.url)).status == 502


async def test_a_blocked_prompt_wins_over_an_upstream_that_refuses() -> None:
    upstream = ScriptedUpstream([BODIES["JSON"]], status=500, content_type=JSON)
    guard = ScriptedGuard(prompt_level=UNSAFE, prompt_delay=0.2)
    async with weir(upstream, guard) as server:
        reply = await ask(server.url)
    assert (reply.status, reply.error["code"]) == (400, "content_filter")
    assert reply.headers["x-should-retry"] == "false"
    assert guard.slots == 0


# The guard.

FAULTS = ["raise", "short", "long", "hang"]


def waits(fault: str) -> dict[str, Any]:
    """Short for a guard that hangs; what else it does it does at once, and no slow machine is taken for it."""
    return {"guard__verdict_seconds": 0.3, "guard__admission_seconds": 0.3} if fault == "hang" else {}


def upstream_of(is_streamed: bool) -> ScriptedUpstream:
    if is_streamed:
        return ScriptedUpstream(ANSWER)
    return ScriptedUpstream([body({"content": TEXT})], content_type=JSON)


def text_of(reply: Reply, is_streamed: bool) -> str:
    if not is_streamed:
        return str(reply.json["choices"][0]["message"]["content"]) if reply.status == 200 else ""
    return events(reply).content if reply.status == 200 else ""


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_prompt_without_a_verdict_is_refused(fault: str, is_streamed: bool) -> None:
    guard = ScriptedGuard(prompt_fault=fault)
    async with weir(upstream_of(is_streamed), guard, **waits(fault)) as server:
        with recorded() as records, timed():
            reply = await ask(server.url, stream=is_streamed)
        assert guard.slots == 0
    assert (reply.status, reply.error["code"]) == (503, "guard_unavailable")
    assert reply.headers["retry-after"]
    assert reply.headers["x-weir-scanned"] == (await records.next())["scanned"] == "none"


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("after", [0, 1, 5, 9])
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_answer_without_a_verdict_is_not_delivered(fault: str, after: int, is_streamed: bool) -> None:
    guard = ScriptedGuard(fails_after=after, fault=fault)
    async with weir(upstream_of(is_streamed), guard, **waits(fault)) as server:
        with recorded() as records, timed():
            reply = await ask(server.url, stream=is_streamed)
        assert guard.slots == 0
    record = await records.next()
    assert outcome(reply) == ("error" if is_streamed and after else "refused") or not after
    assert text_of(reply, is_streamed) in ["".join(WORDS[:n]) for n in range(after + 1)]
    assert record["error"].startswith("Guard")
    assert record["scanned"] == "full"  # of what was delivered
    assert all(found["scanned"] >= found["delivered"] for found in record["channels"])


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("after", [None, 0, 5, 9])
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_open_failure_delivers_all_and_says_what_was_not_judged(
    fault: str, after: int | None, is_streamed: bool
) -> None:
    guard = ScriptedGuard(fails_after=after, fault=fault, prompt_fault=fault if after is None else None)
    async with weir(upstream_of(is_streamed), guard, guard__on_failure="open", **waits(fault)) as server:
        with recorded() as records, timed():
            reply = await ask(server.url, stream=is_streamed)
        assert guard.slots == 0
    assert text_of(reply, is_streamed) == TEXT
    record = await records.next()
    [found] = record["channels"]
    assert record["outcome"] == "complete"
    assert record["error"].startswith("Guard")
    assert found["delivered"] == len(TEXT)
    assert found["scanned"] < len(TEXT)
    assert record["scanned"] == ("partial" if found["scanned"] else "none")
    if is_streamed and after is not None:
        # The headers left before the failure, so the finish says it.
        [finish] = [one for one in events(reply).events if one["choices"][0]["finish_reason"]]
        assert finish["weir"]["scanned"] == record["scanned"]
    else:
        assert reply.headers["x-weir-scanned"] == record["scanned"]


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("after", [None, 0, 5])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_watched_answer_is_the_same_when_the_guard_fails(
    fault: str, after: int | None, is_streamed: bool
) -> None:
    async with weir(upstream_of(is_streamed), ScriptedGuard(), policy__on_flag="monitor", **waits(fault)) as server:
        expected = await ask(server.url, stream=is_streamed)
    guard = ScriptedGuard(fails_after=after, fault=fault, prompt_fault=fault if after is None else None)
    async with weir(upstream_of(is_streamed), guard, policy__on_flag="monitor", **waits(fault)) as server:
        reply = await ask(server.url, stream=is_streamed)
        assert guard.slots == 0
    assert reply.body == expected.body
    assert reply.is_complete


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("after", [0, 5, 9])
async def test_a_window_bounds_what_leaves_though_the_guard_fails(fault: str, after: int) -> None:
    guard = ScriptedGuard(fails_after=after, fault=fault)
    async with weir(
        upstream_of(True), guard, policy__release="window", policy__window=6, policy__notice="", **waits(fault)
    ) as server:
        reply = await ask(server.url, stream=True)
    assert outcome(reply) == "error"
    assert len(events(reply).content) <= len("".join(WORDS[:after])) + 6


async def test_a_flag_before_the_failure_still_cuts_in_open_mode() -> None:
    guard = ScriptedGuard(labels("SSUU"))
    async with weir(upstream_of(True), guard, guard__on_failure="open") as server:
        reply = await ask(server.url, stream=True)
    assert outcome(reply) == "cut"
    assert events(reply).content.startswith("one two")


async def test_a_mistake_of_ours_is_told_without_its_text() -> None:
    guard = ScriptedGuard(fails_after=4)
    guard.error = ValueError("secret canary")  # type: ignore[assignment]
    async with weir(upstream_of(True), guard) as server:
        with recorded() as records:
            reply = await ask(server.url, stream=True)
        assert guard.slots == 0
    assert outcome(reply) == "error"
    assert b"canary" not in reply.raw
    record = await records.next()
    assert record["outcome"] == "error"
    assert record["error"].startswith("internal: ValueError at fakes.py")
    assert "canary" not in json.dumps(record)


EVIL = framed(body({"content": "EVIL"}), "length", JSON)


@pytest.mark.parametrize(("junk", "late"), [(EVIL, b""), (b"", EVIL), (b"", EVIL[:30]), (b"EVIL", b""), (b"\r\n", b"")])
async def test_what_an_upstream_adds_to_an_answer_meets_nobody(junk: bytes, late: bytes) -> None:
    good = framed(body({"content": "good"}), "length", JSON)
    async with weir(RawUpstream(good + junk, stays=True, late=late)) as server:
        for _ in range(4):
            reply = await ask(server.url)
            # A part of a head can spoil the next answer, but not become it.
            assert reply.status in ((200, 502) if junk == b"EVIL" or late == EVIL[:30] else (200,))
            assert b"EVIL" not in reply.raw
            await asyncio.sleep(0.05)  # the late part comes while the connection waits for its next use
