"""vLLM itself, on this machine's CPU: for `make vllm` alone."""

import asyncio
import importlib.util
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import msgspec
import pytest

from proxy.guard.client import Address
from proxy.guard.door import GuardDoor
from proxy.guard.process import Child, Config, RemoteGuard, VllmGuard
from proxy.guard.settings import GuardSettings

# It takes a minute to start on a small machine that has other things to do.
WITH_VLLM = bool(os.environ.get("WEIR_VLLM")) and importlib.util.find_spec("vllm") is not None
WITHOUT = "needs vLLM, which is no dependency: `make vllm` runs it"
SLOW_SECONDS = 600.0
# Nothing is compiled for so short a life, and a cache of a few thousand blocks is enough.
ARGUMENTS = {"enforce_eager": True}
KV_BYTES = 64 << 20


def patient(settings: GuardSettings) -> GuardSettings:
    """Deadlines that are calm anyway last as long as a start of vLLM may."""
    names = ("verdict_seconds", "open_seconds", "health_seconds")
    calm = {name: SLOW_SECONDS for name in names if getattr(settings, name) >= 60.0}
    return replace(settings, **calm)  # type: ignore[arg-type]


def on_vllm(config: Config, **arguments: bool | int | float | str) -> Config:
    settings = replace(patient(config.settings), kv_bytes=KV_BYTES)
    return msgspec.structs.replace(config, settings=settings, vllm=ARGUMENTS | arguments)


class Worker:
    """A worker that is kept, by a loop in a thread of its own."""

    def __init__(self, config: Config) -> None:
        self.path = config.path
        self.child = Child(VllmGuard.module, on_vllm(config), has_group=True)
        self.error: BaseException | None = None
        self.is_there, self.is_wanted = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._keep()))

    async def _keep(self) -> None:
        try:
            await self.child.start()
            self.is_there.set()
            await asyncio.to_thread(self.is_wanted.wait)
        except BaseException as exc:
            self.error = exc
        finally:
            self.is_there.set()
            await self.child.close()


@contextmanager
def running_worker(config: Config) -> Iterator[Worker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        worker = Worker(config)
        worker.thread.start()
        worker.is_there.wait(SLOW_SECONDS)
        try:
            if worker.error is not None:
                raise worker.error
            yield worker
        finally:
            worker.is_wanted.set()
            worker.thread.join(SLOW_SECONDS)


class AttachedVllm(RemoteGuard):
    """A guard that knows its worker."""

    def __init__(self, worker: Worker, settings: GuardSettings) -> None:
        super().__init__(Address(path=worker.path), "", settings)
        self.worker = worker


async def kill_worker(guard: GuardDoor) -> None:
    assert isinstance(guard, AttachedVllm)
    os.kill(guard.worker.child.pid, signal.SIGKILL)


@asynccontextmanager
async def stopped_worker(guard: GuardDoor) -> AsyncIterator[None]:
    assert isinstance(guard, AttachedVllm)
    os.kill(guard.worker.child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(guard.worker.child.pid, signal.SIGCONT)
