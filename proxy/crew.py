"""The processes that serve on one port, as their parent sees them: started, asked, replaced, stopped."""

import asyncio
import pickle
import signal
import sys
import time
from contextlib import suppress

import msgspec

from proxy.app import CannotStart
from proxy.joint_metrics import Family, JointMetrics, family
from proxy.settings import Settings
from proxy.worker import READY, Said

# Loading the modules and tables takes about two seconds of a core.
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

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.families: list[Family] = []  # as they were told last
        self.is_serving = False
        self._number = READY
        self._lock = asyncio.Lock()
        self._began = time.monotonic()

    @classmethod
    async def spawn(cls) -> "Worker":
        """Raises OSError."""
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", cls.module),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_ANSWER_BYTES,
                start_new_session=True,  # a Ctrl-C at the terminal is the parent's to handle
            )
        )

    @property
    def is_steady(self) -> bool:
        return time.monotonic() - self._began > STEADY_SECONDS

    def order(self, order: Settings | int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(pickle.dumps(order))

    async def begin(self, settings: Settings) -> None:
        """Back when it serves. Raises CannotStart."""
        self.order(settings)
        try:
            async with asyncio.timeout(START_SECONDS):
                said = await self._answer()
        except TimeoutError:
            self.end(signal.SIGKILL)
            said = Said(error="it was not ready in time", status=1)
        if said is None:
            raise CannotStart(f"A worker died at its start ({cause(await self.process.wait())}).", 1)
        if said.error:
            raise CannotStart(said.error, said.status)
        self.is_serving = True

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

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: set[Worker] = set()
        self._stopping = asyncio.Event()
        self._metrics = JointMetrics()
        self._deaths = 0

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    async def start(self) -> None:
        """Back when all serve. Raises CannotStart, OSError."""
        starts = [self._start() for _ in range(self._settings.server.workers)]
        results = await asyncio.gather(*starts, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def keep(self, group: asyncio.TaskGroup) -> None:
        """Replace those that die, until `stop`; the group's tasks end when they all have."""
        for worker in list(self._workers):
            group.create_task(self._keep(worker))

    def adopt(self, settings: Settings) -> None:
        """See `reload.Adopting`."""
        own = {name: getattr(self._settings, name) for name in ("server", "guard", "admin")}
        self._settings = settings.model_copy(update=own)
        for worker in self._workers:
            worker.order(self._settings)

    async def metrics(self) -> bytes:
        """Of all of them, in Prometheus' text format."""
        workers = list(self._workers)
        await asyncio.gather(*(worker.ask() for worker in workers))
        there = [worker for worker in workers if worker in self._workers]  # others are counted among the gone
        return self._metrics.text([*self._families(), *(family for worker in there for family in worker.families)])

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

    async def _start(self) -> Worker:
        """Raises CannotStart, OSError."""
        worker = await Worker.spawn()
        self._workers.add(worker)
        if self.is_stopping:
            worker.end(signal.SIGTERM)
        try:
            await worker.begin(self._settings)
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
            if self.is_stopping:
                return
            self._deaths += 1
            print(f"weir: a worker died ({cause(status)}) and is replaced", file=sys.stderr, flush=True)
            failures = 0 if worker.is_steady else failures + 1
            if (found := await self._replace(failures)) is None:
                return
            worker = found

    async def _replace(self, failures: int) -> Worker | None:
        """Until it serves; None once there is nothing to replace any more."""
        while not await self._stops_within(RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)]):
            try:
                return await self._start()
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


def cause(status: int) -> str:
    """Of a process' end, in a word or two."""
    return signal.Signals(-status).name if status < 0 else f"status {status}"
