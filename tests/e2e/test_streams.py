"""Whole answers over real sockets: unchanged when safe, cut at the flagged character, never ahead of a verdict."""

import asyncio
import json
import random
from typing import Any

import pytest

from proxy.retokenizer import encode
from tests.driver import DONE, WORDS, Read, answer, call, chunk, read
from tests.fakes import SAFE, UNSAFE, Rule, ScriptedGuard, ScriptedUpstream, labels, words
from tests.servers import recorded, weir
from tests.sockets import PATIENCE_SECONDS, Reply, ask, connected, http_request, timed
from tests.wire import STREAMS, cut, text_of
from tests.wire import recorded as recorded_stream

TEXT = "".join(WORDS)
NAMES = sorted(path.stem for path in STREAMS.glob("*.txt"))


def events(reply: Reply) -> Read:
    lines = [line for line in reply.body.decode().split("\n") if not line.startswith(":")]
    return read("\n".join(lines).encode())


@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_stream_keeps_its_text_at_any_cut(name: str) -> None:
    raw = recorded_stream(name)
    for size in (7, 1000, len(raw)):
        async with weir(ScriptedUpstream(cut(raw, size))) as server:
            reply = await ask(server.url, stream=True, stream_options={"include_usage": True})
        assert reply.is_complete
        found = events(reply)
        assert found.is_done
        assert found.content == text_of(raw)
        assert found.finish[0] in ("stop", "length")


# Leaks: section 7 of the catalogue. X is the upstream's text, D what the client got, the trigger
# the first token of the first run of two.


def trigger_of(text: str, rule: Rule) -> int:
    """The offset of the first character of the first run of two Unsafe tokens."""
    ids = encode(text)
    flagged = [rule(ids[: n + 1]) is UNSAFE for n in range(len(ids))]
    for n in range(1, len(ids)):
        if flagged[n - 1] and flagged[n]:
            return len(text_before(text, ids[: n - 1]))
    return len(text)


def text_before(text: str, ids: list[int]) -> str:
    return next(text[:n] for n in range(len(text) + 1) if encode(text[:n]) == ids)


def chunked(text: str, rng: random.Random) -> list[str]:
    places = sorted(rng.sample(range(1, len(text)), rng.randint(0, min(12, len(text) - 1))))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


async def test_nothing_flagged_leaks_at_any_chunking() -> None:
    """L, S and P are 0: the text ends before the trigger, and what follows is nowhere in the bytes."""
    rng = random.Random(7)
    guard, upstream = ScriptedGuard(), ScriptedUpstream()
    fields = ["content", "reasoning_content", "refusal"]
    async with weir(upstream, guard, policy__notice="") as server:
        for number in range(120):
            text = "".join(rng.choices(WORDS, k=rng.randint(2, 10)))
            guard.rule = labels("".join(rng.choices("SSU", k=10)))
            field = fields[number % len(fields)]
            raw = b"".join([*(chunk({field: part}) for part in chunked(text, rng)), chunk({}, "stop"), DONE])
            upstream.chunks = cut(raw, rng.choice([1 << 20, 200, 37]))
            reply = await ask(server.url, stream=True)
            safe = trigger_of(text, guard.rule)
            found = events(reply)
            delivered = found.texts.get((0, field), "")
            assert delivered == text[:safe]
            assert found.finish[0] == ("stop" if safe == len(text) else "content_filter")
            assert all(text[n : n + 8].encode() not in reply.raw for n in range(safe, len(text) - 7))
        await guard.freed.wait()


async def test_a_flagged_tool_call_leaks_at_no_chunking() -> None:
    rng = random.Random(11)
    arguments = json.dumps({"city": "Paris", "note": "a bad idea \u00e9"})
    for _ in range(12):
        calls = [call(0, "find"), *(call(0, arguments=part) for part in chunked(arguments, rng))]
        guard = ScriptedGuard(words("bad"))
        async with weir(ScriptedUpstream([*calls, chunk({}, "tool_calls"), DONE]), guard) as server:
            reply = await ask(server.url, stream=True)
        found = events(reply)
        assert arguments.startswith(found.texts.get((0, "tool_calls.0.arguments"), ""))
        assert b" bad" not in reply.raw  # the blank: an id in hex may well hold "bad"
        assert found.finish == {0: "content_filter"}


async def test_a_flagged_choice_leaves_the_others_whole() -> None:
    def rule(ids: Any) -> Any:
        return words("two")(ids) if ids[:1] == encode("one") else labels("")(ids)

    chunks = [chunk({"content": word}, index=n) for word in WORDS for n in (1, 0, 2)]
    chunks += [chunk({"content": " and"}, index=3), *(chunk({}, "stop", index=n) for n in (3, 2, 1)), DONE]
    chunks[1] = chunk({"content": "one"}, index=0)
    first = [chunk({"content": "Say "}, index=n) for n in (1, 2, 3)]
    async with weir(ScriptedUpstream([*first, *chunks]), ScriptedGuard(rule), policy__notice="") as server:
        found = events(await ask(server.url, stream=True, n=4))
    assert found.finish == {0: "content_filter", 1: "stop", 2: "stop", 3: "stop"}
    assert found.texts[0, "content"] == "one"
    assert found.texts[1, "content"] == found.texts[2, "content"] == "Say " + TEXT
    assert found.is_done


async def test_logprobs_leave_with_the_text_they_repeat_and_never_beyond_it() -> None:
    def entry(word: str) -> dict[str, Any]:
        return {"token": word, "logprob": -1.0, "bytes": list(word.encode()), "top_logprobs": []}

    def with_logprobs(word: str) -> bytes:
        choice = {"index": 0, "delta": {"content": word}, "logprobs": {"content": [entry(word)]}, "finish_reason": None}
        return b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n"

    chunks = [*(with_logprobs(word) for word in WORDS), chunk({}, "stop"), DONE]
    for guard, said in ((ScriptedGuard(), WORDS), (ScriptedGuard(labels("SSSUU")), WORDS[:3])):
        async with weir(ScriptedUpstream(chunks), guard, policy__notice="") as server:
            found = events(await ask(server.url, stream=True, logprobs=True))
        lists = [choice["logprobs"] for event in found.events for choice in event["choices"] if choice["logprobs"]]
        assert [one["token"] for entries in lists for one in entries["content"]] == said
        assert found.content == "".join(said)


# Time.


async def test_no_text_leaves_before_the_verdict_on_the_prompt() -> None:
    judged = asyncio.Event()

    class Thinking(ScriptedGuard):
        async def open(self, *args: Any, **options: Any) -> Any:
            await judged.wait()
            return await super().open(*args, **options)

    async with weir(ScriptedUpstream(answer(WORDS)), Thinking()) as server, connected(server.url) as client:
        await client.send(http_request(stream=True))
        await server.upstream.asked.wait()  # in parallel
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.read_until(b"data:")
        assert b"one" not in client.received
        judged.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert events(await client.reply()).content == TEXT


@pytest.mark.parametrize("is_blocked", [True, False])
async def test_with_before_the_upstream_is_asked_after_the_verdict_alone(is_blocked: bool) -> None:
    guard = ScriptedGuard(prompt_delay=0.2, prompt_level=UNSAFE if is_blocked else SAFE)
    async with weir(ScriptedUpstream(answer(WORDS)), guard, policy__prompt_check="before") as server:
        reply = await ask(server.url, stream=True)
        assert len(server.upstream.requests) == (0 if is_blocked else 1)
    assert reply.status == (400 if is_blocked else 200)


async def test_in_parallel_a_blocked_prompt_frees_the_upstream() -> None:
    guard = ScriptedGuard(prompt_level=UNSAFE, prompt_delay=0.2)
    async with weir(ScriptedUpstream(answer(WORDS), stall_at=2), guard) as server:
        assert (await ask(server.url, stream=True)).status == 400
        async with asyncio.timeout(PATIENCE_SECONDS):
            await server.upstream.left.wait()
            await guard.freed.wait()


async def test_a_cut_frees_the_upstream_at_once() -> None:
    async with weir(ScriptedUpstream(answer(WORDS), stall_at=8), ScriptedGuard(labels("SSUU"))) as server:
        with timed():
            assert events(await ask(server.url, stream=True)).finish == {0: "content_filter"}
            await server.upstream.left.wait()


async def test_heartbeats_stand_before_an_event_and_are_never_one() -> None:
    upstream = ScriptedUpstream(answer(WORDS[:3]), pause=0.25)
    async with weir(upstream, server__heartbeat_seconds=0.1) as server:
        reply = await ask(server.url, stream=True)
    lines = reply.body.decode().split("\n")
    beats = [n for n, line in enumerate(lines) if line == ": hb"]
    assert len(beats) >= 3
    for n in beats:
        assert lines[n + 1] == ": hb" or lines[n + 1].startswith("data: ")
        assert n == 0 or lines[n - 1] in ("", ": hb")
    assert events(reply).content == "".join(WORDS[:3])


async def test_a_chatty_upstream_whose_text_is_held_does_not_silence_us() -> None:
    comments = [b": upstream is thinking\n\n"] * 1000
    upstream = ScriptedUpstream([*comments, *answer(WORDS)], pause=0.05)
    async with weir(upstream, server__heartbeat_seconds=0.1) as server, connected(server.url) as client:
        await client.send(http_request(stream=True))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await client.read_until(b": hb\n\r\n5\r\n: hb\n")
        assert b"data:" not in client.received
        assert b"thinking" not in client.received


async def test_an_idle_upstream_is_measured_by_its_own_bytes_not_by_a_slow_guard() -> None:
    guard = ScriptedGuard(delay=0.7)
    async with weir(ScriptedUpstream(answer(WORDS)), guard, upstream__idle_seconds=0.5) as server:
        assert events(await ask(server.url, stream=True)).content == TEXT


async def test_a_client_that_does_not_read_is_let_go() -> None:
    endless = ScriptedUpstream([chunk({"content": " word" * 2000})] * 2000)
    guard = ScriptedGuard(fails_after=0)  # nothing to judge, so the text is as fast as it can be
    async with (
        weir(endless, guard, server__send_seconds=0.5, guard__on_failure="open") as server,
        connected(server.url, receive_buffer=4096) as client,
    ):
        with recorded() as records:
            await client.send(http_request(stream=True))
            async with asyncio.timeout(2 * PATIENCE_SECONDS):
                await endless.left.wait()
                await guard.freed.wait()
        record = await records.next()
    assert record["outcome"] == "client_gone"


# Modes.


@pytest.mark.parametrize("string", ["SSSSSSSSSS", "UUUUUUUUUU", "SUSUUSUUSU"])
async def test_a_watched_answer_is_the_upstreams_to_the_byte_and_judged_to_its_end(string: str) -> None:
    text = "e\u0301 \U0001f600\r\n" + TEXT
    guard = ScriptedGuard(labels(string))
    async with weir(ScriptedUpstream(answer(list(text))), guard, policy__on_flag="monitor") as server:
        with recorded() as records:
            reply = await ask(server.url, stream=True)
        record = await records.next()
    assert events(reply).content == text
    assert events(reply).finish == {0: "stop"}
    assert b"weir" not in reply.body
    [found] = record["channels"]
    assert found["scanned"] == found["delivered"] == len(text)
    assert record["scanned"] == "full"
    assert (found["flagged"] is not None) == ("UU" in string)


async def test_in_window_mode_a_bounded_text_runs_ahead_and_the_finish_waits() -> None:
    guard = ScriptedGuard(labels("SSSSSSSSUU"), delay=0.05)
    settings: Any = {"policy__release": "window", "policy__window": 8, "policy__notice": ""}
    async with weir(ScriptedUpstream(answer(WORDS)), guard, **settings) as server:
        with recorded() as records:
            found = events(await ask(server.url, stream=True))
        record = await records.next()
    safe = len("".join(WORDS[:8]))
    assert safe <= len(found.content) <= safe + 8
    assert TEXT.startswith(found.content)
    assert found.finish == {0: "content_filter"}
    assert record["outcome"] == "cut"


@pytest.mark.parametrize("notice", ["[stopped]", ""])
async def test_the_notice_is_the_last_of_a_cut_answer(notice: str) -> None:
    async with weir(ScriptedUpstream(answer(WORDS)), ScriptedGuard(labels("SSUU")), policy__notice=notice) as server:
        found = events(await ask(server.url, stream=True))
    assert found.content == "one two" + notice
    assert found.events[-1]["weir"]["offset"] == len("one two")


# Many.


async def test_two_hundred_streams_at_once_all_end_well() -> None:
    guard = ScriptedGuard()
    async with weir(ScriptedUpstream(answer(WORDS)), guard) as server:

        async def one(number: int) -> bool:
            reply = await ask(server.url, stream=True, seed=number)
            return reply.is_complete and events(reply).content == TEXT

        assert all(await asyncio.gather(*(one(number) for number in range(200))))
        assert len(server.upstream.requests) == 200
        assert guard.slots == 0


# The end of the server.


async def test_a_server_that_stops_tells_the_clients_it_leaves() -> None:
    upstream = ScriptedUpstream(answer(WORDS), stall_at=4)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with recorded() as records:
            async with weir(upstream, server__drain_seconds=0.1) as server:
                client_of = connected(server.url)
                client = await client_of.__aenter__()
                await client.send(http_request(stream=True))
                await client.read_until(b'"one"')
            reply = await client.reply()
            await client_of.__aexit__(None, None, None)
    found = events(reply)
    assert (found.error or {})["code"] == "shutting_down"
    assert not found.is_done
    assert not reply.is_complete
    assert (await records.next())["outcome"] == "error"


async def test_a_server_that_stops_lets_an_answer_finish_in_time() -> None:
    upstream = ScriptedUpstream(answer(WORDS), pause=0.03)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with weir(upstream, server__drain_seconds=5) as server:
            client_of = connected(server.url)
            client = await client_of.__aenter__()
            await client.send(http_request(stream=True))
            await client.read_until(b'"one"')
        reply = await client.reply()
        await client_of.__aexit__(None, None, None)
    assert reply.is_complete
    assert events(reply).content == TEXT
