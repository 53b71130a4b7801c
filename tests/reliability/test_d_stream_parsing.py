"""Section D of docs/reliability.md: reading an upstream's stream, and writing ours."""

import os
import random
import re
from typing import Any

import pytest

from proxy.stream import Expected
from tests.driver import DONE, WORDS, Guard, answer, chunk, drive, read, stream_of
from tests.e2e.test_faults import outcome
from tests.e2e.test_streams import chunked, events
from tests.fakes import ScriptedGuard, ScriptedUpstream, all_safe, labels
from tests.judge import random_text
from tests.servers import weir
from tests.sockets import ask
from tests.wire import cut

STREAMS = 5_000 if "WEIR_LONG" in os.environ else 100
TEXT = "".join(WORDS)
EVENTS = [part.decode().removeprefix("data: ").removesuffix("\n\n") for part in answer(WORDS)]
# The same events in every framing that the standard allows.
FRAMINGS: dict[str, bytes] = {
    "LF": "".join(f"data: {one}\n\n" for one in EVENTS).encode(),
    "CR": "".join(f"data: {one}\r\r" for one in EVENTS).encode(),
    "CRLF": "".join(f"data: {one}\r\n\r\n" for one in EVENTS).encode(),
    "BOM": "".join(f"data: {one}\n\n" for one in ["", *EVENTS]).encode("utf-8-sig").replace(b"data: \n\n", b"", 1),
    "no blank": "".join(f"data:{one}\n\n" for one in EVENTS).encode(),
    "two lines of data": "".join(
        f"data: {one.replace(',', f',{chr(10)}data: ', 1) if one != '[DONE]' else one}\n\n" for one in EVENTS
    ).encode(),
    "comments and ids": "".join(f": x\nid: a\x00b\nretry: 1\nfoo\ndata: {one}\nevent\n\n" for one in EVENTS).encode(),
}


@pytest.mark.parametrize("name", FRAMINGS)
async def test_d1_every_framing_of_the_standard_is_read_and_cut_alike(name: str) -> None:
    guard, upstream = ScriptedGuard(), ScriptedUpstream()
    async with weir(upstream, guard, policy__notice="") as server:
        for size in (1, 2, 3, 17, 1 << 20):
            upstream.chunks = cut(FRAMINGS[name], size)
            for rule, said, finish in ((all_safe, TEXT, "stop"), (labels("SSSUU"), "one two three", "content_filter")):
                guard.rule = rule
                reply = await ask(server.url, stream=True)
                assert (events(reply).content, events(reply).finish) == (said, {0: finish})
                assert reply.is_complete
                assert (b" five" in reply.raw) == (finish == "stop")


ODD = [
    b"data: {\n\n",
    b"data: canary\n\n",
    b'data: "canary"\n\n',
    b'data: ["canary"]\n\n',
    b"data: 17\n\n",
    b"data: null\n\n",
    b'data: {"canary": "canary"}\n\n',
    b'data: {"id": "x", "object": "canary", "text": "canary"}\n\n',
    b'data: {"choices": {"0": "canary"}}\n\n',
    b'data: {"choices": [{"index": 0, "delta": "canary"}]}\n\n',
    b'data: {"choices": [{"index": 7, "delta": {"content": "canary"}}]}\n\n',
    b'event: canary\ndata: {"canary": "canary"}\n\n',
    b'data: {"choices": [{"index": 0, "delta": {"content": "canary"}}]} canary\n\n',
    b"data: " + b"canary" * 20_000 + b"\n\n",
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
async def test_d3_what_cannot_be_read_is_never_forwarded(odd: bytes) -> None:
    """Not even where the guard finds everything harmless."""
    async with weir(ScriptedUpstream([*answer(WORDS)[:5], odd, DONE]), upstream__max_event_bytes=65_536) as server:
        reply = await ask(server.url, stream=True)
        assert outcome(reply) == "error"
        assert b"canary" not in reply.raw
        assert TEXT.startswith(events(reply).content)
        await server.guard.freed.wait()


Said = dict[tuple[int, str], str]
ARGUMENTS = "tool_calls.0.arguments"


def random_stream(rng: random.Random) -> tuple[Said, int, list[bytes]]:
    """What each channel says, the number of choices, and the bytes in any pieces."""
    choices = rng.choice([1, 1, 2, 3])
    fields = rng.sample(["reasoning_content", "content", "refusal", ARGUMENTS], rng.randint(1, 3))
    said = {(index, name): random_text(rng)[:60] or "x" for index in range(choices) for name in fields}
    parts: dict[int, list[bytes]] = {index: [] for index in range(choices)}
    for (index, name), text in said.items():
        for number, part in enumerate(chunked(text, rng) if len(text) > 1 else [text]):
            parts[index].append(piece_of(index, name, part, is_first=number == 0))
    for index in range(choices):
        parts[index].append(chunk({}, "stop", index=index))
    order = [index for index, pieces in parts.items() for _ in pieces]
    rng.shuffle(order)
    raw = b"".join([*(parts[index].pop(0) for index in order), DONE])
    return said, choices, cut(raw, rng.choice([1, 7, 50, 1 << 20]))


def piece_of(index: int, name: str, part: str, *, is_first: bool) -> bytes:
    if name != ARGUMENTS:
        return chunk({name: part}, index=index)
    function: dict[str, Any] = {"arguments": part} | ({"name": "find"} if is_first else {})
    entry = {"index": 0, "function": function} | ({"id": "call_1", "type": "function"} if is_first else {})
    return chunk({"tool_calls": [entry]}, index=index)


def test_d12_what_arrives_is_a_beginning_of_what_was_said_and_all_of_it_where_it_is_safe() -> None:
    """Any text in any pieces, over several choices and channels, with a guard that finds something or does not."""
    rng = random.Random(12)
    for _ in range(STREAMS):
        said, choices, pieces = random_stream(rng)
        is_safe = rng.random() < 0.5
        rule = all_safe if is_safe else labels("".join(rng.choices("SSSSU", k=60)))
        stream, _ = stream_of(expected=Expected(choices=choices))
        found = read(drive(stream, pieces, Guard(rule)))
        for key, text in said.items():
            whole = re.sub("[\ud800-\udfff]", "\ufffd", text)
            assert whole.startswith(found.texts.get(key, ""))
            assert found.texts.get(key, "") == whole or not is_safe
        assert found.is_done
        if is_safe:
            assert found.finish == dict.fromkeys(range(choices), "stop")  # in any order: choices never wait for others
