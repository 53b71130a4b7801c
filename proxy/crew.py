"""The processes that serve on one port, as their parent sees them: started, asked, replaced, stopped."""

import asyncio
import pickle
import signal
import sys
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from proxy.joint_metrics import Family, JointMetrics, family
from proxy.serving import CannotStart
from proxy.settings import Settings
from proxy.shared_usage import SharedMemory
from proxy.worker import LISTENING, READY, Said, Start

# Loading the modules and tables takes about two seconds of a core; so may attaching to a guard that is there.
START_SECONDS = 60.0
# For the metrics of one; the last known ones stand for one that is late.
ASK_SECONDS = 1.0
# Between the end of a worker and the start of the next one, by how often that has failed in a row.
RESTART_SECONDS = (0.0, 0.5, 2.0, 5.0, 15.0)
# One that has served for so long has not failed.
STEADY_SECONDS = 10.0
# Beyond what a worker takes to end at the most, by its settings: it hangs.
STOP_SECONDS = 15.0
MAX_ANSWER_BYTES = 16 << 20


class Worker:
    """One process."""

    module = "proxy.worker"

    def __init__(self, process: asyncio.subprocess.Process, row: int) -> None:
        self.process = process
        self.row = row  # of the memory in which keys are counted
        self.families: list[Family] = []  # as they were told last
        self.is_serving = False
        self._number = READY
        self._lock = asyncio.Lock()
        self._began = time.monotonic()

    @classmethod
    async def spawn(cls, fd: int, row: int) -> "Worker":
        """Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", cls.module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_ANSWER_BYTES,
            pass_fds=(fd,),
            start_new_session=True,  # a Ctrl-C at the terminal is the parent's to handle
        )
        return cls(process, row)

    @property
    def is_steady(self) -> bool:
        return time.monotonic() - self._began > STEADY_SECONDS

    def order(self, order: Start | Settings | int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(pickle.dumps(order))

    async def until(self, number: int) -> None:
        """Back when it has said so. Raises CannotStart."""
        try:
            async with asyncio.timeout(START_SECONDS):
                said = await self._answer()
        except TimeoutError:
            self.end(signal.SIGKILL)
            said = Said(error="A worker was not ready in time.", status=1)
        if said is None:
            raise CannotStart(f"A worker died at its start ({cause(await self.process.wait())}).", 1)
        if said.error:
            raise CannotStart(said.error, said.status)
        self.is_serving = number == READY

    async def ask(self) -> None:
        """For its metrics; where it does not answer, those of its last answer stay."""
        if not self.is_serving:
            return
        async with self._lock:
            self._number += 1
            self.order(self._number)
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    while (said := await self._answer()) is not None:
                        if said.number == self._number:
                            self.families = said.families
                            break

    async def _answer(self) -> Said | None:
        """None once it has ended."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        return msgspec.json.decode(line, type=Said) if line.endswith(b"\n") else None

    def end(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)


class Crew:
    """Keeps as many workers as the settings say."""

    def __init__(self, settings: Settings, *, is_late: bool) -> None:
        """`settings` may be without an address of the guard: it comes with `guard_at`."""
        self._settings = settings
        self._is_late = is_late  # workers listen once they can serve
        self._memory = SharedMemory(settings.server.workers)
        self._workers: set[Worker] = set()
        self._stopping = asyncio.Event()
        self._metrics = JointMetrics()
        self._deaths = 0
        self.is_whole = False  # all have served at some time

    @property
    def settings(self) -> Settings:
        """By which the workers go."""
        return self._settings

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    async def listen(self) -> None:
        """Back when all listen; they answer with 503 so far. Raises CannotStart, OSError."""
        await _all(self._spawn(row) for row in range(self._settings.server.workers))

    def guard_at(self, address: str) -> None:
        """The guard is there, for all of them and those that will replace them."""
        self._change(self._settings.model_copy(
            update={"guard": self._settings.guard.model_copy(update={"address": address})}
        ))  # fmt: skip

    async def serve(self) -> None:
        """Back when all serve, and know it of each other. Raises CannotStart."""
        await _all(worker.until(READY) for worker in self._workers)
        for worker in self._workers:
            worker.order(READY)
        self._is_late = True  # as will those be that replace one
        self.is_whole = True

    def keep(self, group: asyncio.TaskGroup) -> None:
        """Replace those that die, until `stop`; the group's tasks end when they all have."""
        for worker in list(self._workers):
            group.create_task(self._keep(worker))

    def adopt(self, settings: Settings) -> None:
        """See `reload.Adopting`."""
        own = self._settings.server
        server = settings.server.model_copy(update={"port": own.port, "reuse_port": own.reuse_port})
        kept = {"server": server, "guard": self._settings.guard, "admin": self._settings.admin}
        self._change(settings.model_copy(update=kept))

    def _change(self, settings: Settings) -> None:
        self._settings = settings
        for worker in self._workers:
            worker.order(settings)

    async def metrics(self) -> JointMetrics:
        """Of all of them, as they are now."""
        workers = list(self._workers)
        await asyncio.gather(*(worker.ask() for worker in workers))
        there = [worker for worker in workers if worker in self._workers]  # others are counted among the gone
        self._metrics.add_up([*self._families(), *(family for worker in there for family in worker.families)])
        return self._metrics

    def _families(self) -> list[Family]:
        """Of the crew itself."""
        serving = sum(worker.is_serving for worker in self._workers)
        return [
            family("weir_workers", "Processes that serve.", "gauge", serving),
            family("weir_worker_deaths", "Processes that ended without being told to.", "counter", self._deaths),
        ]

    def stop(self) -> None:
        """Let them drain; one that takes longer than it may is killed."""
        self._stopping.set()
        self.end(signal.SIGTERM)
        server = self._settings.server
        longest = server.pre_stop_seconds + server.drain_seconds + STOP_SECONDS
        asyncio.get_running_loop().call_later(longest, self.end, signal.SIGKILL)

    def end(self, number: int = signal.SIGKILL) -> None:
        for worker in self._workers:
            worker.end(number)

    def close(self) -> None:
        """Whoever is left ends with it."""
        self.end()
        self._memory.close()

    async def _spawn(self, row: int) -> Worker:
        """Back when it listens. Raises CannotStart, OSError."""
        worker = await Worker.spawn(self._memory.fd, row)
        self._workers.add(worker)
        if self.is_stopping:
            worker.end(signal.SIGTERM)
        try:
            worker.order(Start(self._settings, self._is_late, self._memory.fd, self._memory.rows, row))
            await worker.until(LISTENING)
        except BaseException:
            self._workers.discard(worker)
            raise
        return worker

    async def _start(self, row: int) -> Worker:
        """Back when it serves. Raises CannotStart, OSError."""
        worker = await self._spawn(row)
        try:
            await worker.until(READY)
        except BaseException:
            self._workers.discard(worker)
            raise
        return worker

    async def _keep(self, worker: Worker) -> None:
        failures = 0
        while True:
            status = await worker.process.wait()
            self._workers.discard(worker)
            self._metrics.retire(worker.families)
            self._memory.clear(worker.row)
            if self.is_stopping:
                return
            self._deaths += 1
            print(f"weir: a worker died ({cause(status)}) and is replaced", file=sys.stderr, flush=True)
            failures = 0 if worker.is_steady else failures + 1
            if (found := await self._replace(worker.row, failures)) is None:
                return
            worker = found

    async def _replace(self, row: int, failures: int) -> Worker | None:
        """Until it serves; None once there is nothing to replace any more."""
        while not await self._stops_within(RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)]):
            try:
                return await self._start(row)
            except (CannotStart, OSError) as exc:
                failures += 1
                if not self.is_stopping:
                    print(f"weir: a worker cannot be started: {exc}", file=sys.stderr, flush=True)
        return None

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self.is_stopping


async def _all(starts: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Each to its end, then the first exception of any."""
    for result in await asyncio.gather(*starts, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def cause(status: int) -> str:
    """Of a process' end, in a word or two."""
    return signal.Signals(-status).name if status < 0 else f"status {status}"
