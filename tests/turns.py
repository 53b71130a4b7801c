"""Weir in a thread of its own, so that what its event loop does without a pause can be measured: the CPU of each turn.

CPU, and of that thread alone, since a busy machine makes everything late and nothing dearer. Garbage is not collected
meanwhile: the heap of all tests is no server's.
"""

import asyncio
import gc
import threading
import time
from asyncio import events
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from proxy.app import running
from proxy.config import load_settings
from proxy.guard.protocol import Guard
from tests.fakes import QuickGuard, RawUpstream, ScriptedUpstream
from tests.servers import PATIENT


@dataclass
class Watched:
    """How long its turns were, in seconds of CPU."""

    url: str = ""
    longest: float = 0.0
    turns: int = 0
    cpu: float = 0.0
    error: list[BaseException] = field(default_factory=list)

    def forget(self) -> None:
        self.longest, self.turns, self.cpu = 0.0, 0, 0.0


@asynccontextmanager
async def watched(
    upstream: ScriptedUpstream | RawUpstream, guard: Guard | None = None, **overrides: Any
) -> AsyncIterator[Watched]:
    """Settings are given as `policy__mode="strict"`."""
    found, is_up, may_end = Watched(), threading.Event(), threading.Event()

    async def serve() -> None:
        values = {**PATIENT, "server.port": 0, "server.drain_seconds": 0.2, "upstream.base_url": upstream.url}
        values |= {name.replace("__", "."): value for name, value in overrides.items()}
        async with running(load_settings(overrides=values, environ={}), guard or QuickGuard()) as port:
            found.url = f"http://127.0.0.1:{port}"
            is_up.set()
            await asyncio.to_thread(may_end.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as exc:
            found.error.append(exc)
        finally:
            is_up.set()

    async with upstream.running():
        thread = threading.Thread(target=run)
        was = events.Handle._run

        def turn(handle: Any) -> None:
            if threading.current_thread() is not thread:
                was(handle)
                return
            begin = time.thread_time()
            was(handle)
            spent = time.thread_time() - begin
            found.turns, found.cpu, found.longest = found.turns + 1, found.cpu + spent, max(found.longest, spent)

        events.Handle._run = turn  # type: ignore[assignment, method-assign]
        gc.collect()
        gc.disable()
        thread.start()
        try:
            await asyncio.to_thread(is_up.wait)
            found.forget()
            yield found
            print(f"longest {found.longest * 1000:.1f} ms of {found.turns} turns, {found.cpu:.2f} s")
        finally:
            gc.enable()
            may_end.set()
            await asyncio.to_thread(thread.join)
            events.Handle._run = was  # type: ignore[method-assign]
            if found.error:
                raise found.error[0]
