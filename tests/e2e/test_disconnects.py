"""A client that leaves frees the upstream's connection and the guard's streams at once, in every phase."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.driver import WORDS, answer, body
from tests.fakes import ScriptedGuard, ScriptedUpstream, labels
from tests.servers import Weir, recorded, weir
from tests.sockets import PATIENCE_SECONDS, Client, connected, http_request, timed


@dataclass
class Phase:
    """What the upstream and the guard do, and when the client leaves."""

    upstream: Callable[[], ScriptedUpstream]
    guard: Callable[[], ScriptedGuard] = ScriptedGuard
    mark: bytes | None = None  # the client leaves when it has read this
    stream: bool = True
    is_judging: bool = False  # it leaves when the guard has tokens
    settings: dict[str, Any] = field(default_factory=dict)


JSON = "application/json"
ANSWER = answer(WORDS)
PHASES = {
    "before the upstream's head": Phase(lambda: ScriptedUpstream(ANSWER, first_byte_delay=3600)),
    "before the first token": Phase(lambda: ScriptedUpstream(ANSWER, stall_at=1), mark=b'"role"'),
    "mid-stream": Phase(lambda: ScriptedUpstream(ANSWER, stall_at=6), mark=b'" three"'),
    "while text is held": Phase(
        lambda: ScriptedUpstream(ANSWER, stall_at=5), lambda: ScriptedGuard(labels("SSU")), mark=b'" two"'
    ),
    "during a slow verdict": Phase(
        lambda: ScriptedUpstream(ANSWER, stall_at=11), lambda: ScriptedGuard(delay=3600), is_judging=True
    ),
    "while the prompt is judged": Phase(
        lambda: ScriptedUpstream(ANSWER, stall_at=0), lambda: ScriptedGuard(prompt_delay=3600)
    ),
    "in the middle of a body": Phase(
        lambda: ScriptedUpstream([body({"content": "x"})[:20], b""], content_type=JSON, stall_at=1), stream=False
    ),
    "while a body is judged": Phase(
        lambda: ScriptedUpstream([body({"content": "".join(WORDS)})], content_type=JSON),
        lambda: ScriptedGuard(delay=3600),
        stream=False,
        is_judging=True,
    ),
}


@asynccontextmanager
async def reached(phase: Phase) -> AsyncIterator[tuple[Weir, Client]]:
    async with (
        weir(phase.upstream(), phase.guard(), **phase.settings) as server,
        connected(server.url) as client,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        await client.send(http_request(stream=phase.stream))
        await server.upstream.asked.wait()
        await server.guard.opened.wait()
        if phase.mark is not None:
            await client.read_until(phase.mark)
        if phase.is_judging:
            await server.guard.judging.wait()
        yield server, client


@pytest.mark.parametrize("resets", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("name", PHASES)
async def test_a_client_that_leaves_frees_everything(name: str, resets: bool) -> None:
    with recorded() as records:
        async with reached(PHASES[name]) as (server, client):
            with timed():
                client.leave(reset=resets)
                if name != "while a body is judged":  # then the upstream has finished already
                    await server.upstream.left.wait()
                if name != "while the prompt is judged":  # then none is open
                    await server.guard.freed.wait()
                assert server.guard.slots == 0
            record = await records.next()
    assert record["outcome"] == "client_gone"
    assert len(records.lines) == 1
    for channel in record["channels"]:
        assert channel["scanned"] >= channel["delivered"]


async def test_a_client_that_closes_only_its_sending_side_counts_as_gone() -> None:
    """A FIN alone cannot be told from a client that left, and the upstream must not be paid for nobody."""
    async with reached(PHASES["mid-stream"]) as (server, client):
        with timed():
            client.shut_sending()
            await server.upstream.left.wait()
            await server.guard.freed.wait()
        reply = await client.reply()
    assert not reply.is_complete
    assert b"[DONE]" not in reply.body


@pytest.mark.parametrize("resets", [False, True], ids=["FIN", "RST"])
async def test_three_of_ten_that_leave_do_not_disturb_the_others(
    resets: bool, caplog: pytest.LogCaptureFixture
) -> None:
    upstream, guard = ScriptedUpstream(ANSWER, pause=0.03), ScriptedGuard()
    async with weir(upstream, guard) as server, asyncio.timeout(2 * PATIENCE_SECONDS):

        async def one(number: int) -> bytes:
            async with connected(server.url) as client:
                await client.send(http_request(stream=True))
                if number < 3:
                    await client.read_until(b'" two"')
                    client.leave(reset=resets)
                    return b""
                reply = await client.reply()
                assert reply.is_complete
                return reply.body

        bodies = await asyncio.gather(*(one(number) for number in range(10)))
        await guard.freed.wait()
    assert [b"[DONE]" in found for found in bodies] == [False] * 3 + [True] * 7
    assert all(b'" ten"' in found for found in bodies[3:])
    assert upstream.closed_early == 3
    assert not [one for one in caplog.records if one.name == "weir.http"]


async def test_a_body_that_stops_half_way_reaches_nobody() -> None:
    async with weir() as server, connected(server.url) as client:
        request = http_request(stream=True)
        await client.send(request[:-10])
        client.leave()
        await asyncio.sleep(0.05)
        assert server.upstream.requests == []
        assert server.guard.slots == 0
