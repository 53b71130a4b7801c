"""Section E of docs/reliability.md: what an upstream may do in the middle of an answer."""

import asyncio
import os
import socket
from contextlib import closing
from typing import Any

import pytest

from tests.driver import DONE, WORDS, answer, chunk
from tests.e2e.test_faults import outcome, payload
from tests.e2e.test_streams import events
from tests.fakes import RawUpstream, ScriptedGuard, ScriptedUpstream, framed, labels
from tests.servers import weir
from tests.sockets import PATIENCE_SECONDS, ask, timed

STEP = 1 if "WEIR_LONG" in os.environ else 11
TEXT = "".join(WORDS)


@pytest.mark.parametrize("resets", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_e1_a_break_at_any_byte_is_told_and_leaks_nothing(framing: str, resets: bool) -> None:
    """The text turns at its third word: whatever is cut off, no client reads that word or takes a part for all."""
    parts = [*(chunk({"content": word}) for word in WORDS[:5]), chunk({}, "stop"), DONE]
    raw = framed(b"".join(parts), framing, size=97)
    finished = len(b"".join(parts[:-1]))
    upstream, guard = RawUpstream(resets=resets), ScriptedGuard()
    async with weir(upstream, guard, policy__notice="") as server:
        for end in [*range(raw.index(b"\r\n\r\n") + 4, len(raw), STEP), len(raw)]:
            upstream.reply = raw[:end]
            for string, said in (("", "".join(WORDS[:5])), ("SSUU", "".join(WORDS[:2]))):
                guard.rule = labels(string)
                reply = await ask(server.url, stream=True)
                found = outcome(reply)
                text = events(reply).content if reply.status == 200 else ""
                assert said.startswith(text)
                is_whole = len(payload(raw[:end], framing)) >= finished
                assert is_whole or found in ("error", "refused", "cut"), end
                assert found != "cut" or string
                assert found not in ("complete", "cut") or text == said
                assert b"four" not in reply.raw or not string
        async with asyncio.timeout(PATIENCE_SECONDS):
            await guard.freed.wait()


async def test_e7_an_answer_may_last_longer_than_every_wait_within_it() -> None:
    slow = ScriptedUpstream(answer(WORDS), pause=0.12)
    waits: Any = {f"upstream__{name}_seconds": 1.0 for name in ("first_byte", "idle", "connect")}
    async with weir(slow, **waits) as server:
        assert events(await ask(server.url, stream=True)).content == TEXT


async def test_e7_an_upstream_whose_host_takes_no_connection_is_given_up_in_time() -> None:
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:  # what is beyond the backlog gets no answer at all
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            async with weir(upstream__base_url=url, upstream__connect_seconds=0.3) as server:
                with timed():
                    reply = await ask(server.url, stream=True)
        finally:
            for filler in fillers:
                filler.close()
    assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
    assert server.guard.slots == 0
