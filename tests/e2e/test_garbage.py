"""What has ended is freed there and then: looking for circles among all streams would stop every one of them."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from bench.relay.weir_server import stub_door
from proxy.guard.protocol import Guard
from tests.driver import DONE, WORDS, answer, body, call, chunk
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels
from tests.servers import recorded, weir
from tests.sockets import PATIENCE_SECONDS, connected, http_request

JSON = "application/json"
ANSWER = answer(WORDS)
CALL = [chunk({"role": "assistant"}), call(0, "f", '{"a": 1}'), chunk({}, "tool_calls"), DONE]
TIMES = 3


@dataclass
class Ending:
    outcome: str
    upstream: Callable[[], ScriptedUpstream] = lambda: ScriptedUpstream(ANSWER)
    guard: Callable[[], Guard] = ScriptedGuard
    mark: bytes | None = None  # the client leaves when it has read this
    request: dict[str, Any] = field(default_factory=lambda: {"stream": True})
    settings: dict[str, Any] = field(default_factory=dict)


ENDINGS = {
    "a finished answer": Ending("complete"),
    "one behind the door of an engine": Ending("complete", guard=stub_door),
    "a whole body": Ending(
        "complete", lambda: ScriptedUpstream([body({"content": "one"})], content_type=JSON), request={}
    ),
    "a tool call": Ending("complete", lambda: ScriptedUpstream(CALL)),
    "a flagged answer": Ending("cut", guard=lambda: ScriptedGuard(labels("SSUU"))),
    "a flagged prompt": Ending("refused", guard=lambda: ScriptedGuard(prompt_level=UNSAFE)),
    "annotated": Ending(
        "complete", guard=lambda: ScriptedGuard(labels("SSUU")), settings={"policy__on_flag": "annotate"}
    ),
    "a guard that fails": Ending("error", guard=lambda: ScriptedGuard(fails_after=3)),
    "a guard that hangs": Ending(
        "error", guard=lambda: ScriptedGuard(fails_after=3, fault="hang"), settings={"guard__verdict_seconds": 0.05}
    ),
    "an upstream that refuses": Ending(
        "refused", lambda: ScriptedUpstream([b'{"error": {"message": "no"}}'], status=400, content_type=JSON)
    ),
    "an upstream that breaks off": Ending("error", lambda: ScriptedUpstream(ANSWER, cut_at=5)),
    "a client that leaves": Ending("client_gone", lambda: ScriptedUpstream(ANSWER, stall_at=6), mark=b'" three"'),
    "a request that is wrong": Ending("refused", request={"messages": 1}),
}


@contextmanager
def nothing_collected() -> Iterator[Counter[str]]:
    """Counts, at the end, our objects that only a search for circles finds."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        kinds = (type(one) for one in gc.garbage)
        found.update(kind.__qualname__ for kind in kinds if kind.__module__.startswith(("proxy.", "adapters.")))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("name", ENDINGS)
async def test_what_has_ended_leaves_no_circles(name: str) -> None:
    ending = ENDINGS[name]
    upstream = ending.upstream()
    with recorded() as records:
        async with weir(upstream, ending.guard(), **ending.settings) as server, asyncio.timeout(PATIENCE_SECONDS):
            with nothing_collected() as found:
                for _ in range(TIMES):
                    async with connected(server.url) as client:
                        await client.send(http_request(**ending.request))
                        if ending.mark is None:
                            await client.reply()
                        else:
                            await client.read_until(ending.mark)
                            client.leave()
                            await upstream.left.wait()
                            upstream.left.clear()
                    record = await records.next()
                    assert record["outcome"] == ending.outcome
                    await asyncio.sleep(0.01)
    assert not found
