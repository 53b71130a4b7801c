"""Starts a guard: its engine in a thread of this process, or in a process of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TypeVar

from proxy.guard.canary import check_guard
from proxy.guard.devices import make_runner
from proxy.guard.door import GuardDoor
from proxy.guard.engine import Engine
from proxy.guard.engine_thread import EngineThread
from proxy.guard.loader import EMBEDDED, LoadedGuard, load_guard
from proxy.guard.protocol import GuardInfo
from proxy.guard.settings import GuardSettings

T = TypeVar("T")


async def start_guard(
    model: str = EMBEDDED,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    sha256: Mapping[str, str] | None = None,
    settings: GuardSettings | None = None,
) -> "LocalGuard":
    """Load a guard off the event loop, start its engine, and let it judge its canaries once.

    `model` is "embedded", a folder, or a hub id; see `loader.load_guard` for the rest.
    The caller closes it. Raises GuardUnavailable (CheckpointError is one) with the reason.
    """
    loaded = await in_thread(partial(load_guard, model, revision=revision, dtype=dtype, device=device, sha256=sha256))
    guard = LocalGuard(loaded, settings)
    await check_guard(guard)
    return guard


async def in_thread(work: Callable[[], T]) -> T:
    """Its result or exception. Unlike one of the pool's, the thread holds up no end of the program."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as exc:
            result.set_exception(exc)
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="weir-load", daemon=True).start()
    await done.wait()
    return result.result()


def build_engine(loaded: LoadedGuard, settings: GuardSettings) -> tuple[Engine, GuardInfo, Callable[[], None]]:
    """The engine, what it calls itself, and what the thread that runs it must call first.

    Raises ValueError for settings that cannot work.
    """
    runner = make_runner(loaded.model, settings)
    budget = settings.kv_bytes or runner.default_budget_bytes(settings.kv_share)
    shape = loaded.model.architecture
    window = min(shape.window, settings.window or shape.window, runner.tokens_in(budget))
    engine = Engine(runner, window=window, budget_bytes=budget, limits=settings.limits)
    return engine, replace(loaded.info, window=window), lambda: runner.use_threads(settings.threads)


class LocalGuard(GuardDoor):
    """A guard with its engine in a thread of this process. Made and used on one event loop."""

    def __init__(self, loaded: LoadedGuard, settings: GuardSettings | None = None) -> None:
        """Starts the engine. Raises ValueError for settings that cannot work, RuntimeError without a loop."""
        super().__init__(settings or GuardSettings())
        engine, info, setup = build_engine(loaded, self.settings)
        self._thread = EngineThread(engine, setup, lambda outcomes: self._call(self.receive, outcomes))
        self._thread.start(lambda error: self._call(self.failed, error))
        self.connected(self._thread, info, loaded.model.architecture.vocabulary)

    async def close(self) -> None:
        """See `protocol.Guard`."""
        await super().close()
        await asyncio.to_thread(self._thread.stop)

    def _call(self, function: Callable[..., None], argument: object) -> None:
        """From the engine's thread to the loop's."""
        # A loop that is closed has nobody waiting.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, argument)
