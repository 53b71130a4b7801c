"""The async door: one engine in one thread of its own, for any number of callers on one event loop.

Commands of one loop tick reach the engine as one batch, outcomes of one step come back as one call:
two wake-ups a step, however many streams there are. The engine runs whatever is queued; while it is
busy the next batch grows by itself.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from proxy.guard.commands import Cancel, Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.engine import Engine, Metrics
from proxy.guard.engine_thread import EngineThread
from proxy.guard.loader import EMBEDDED, LoadedGuard, load_guard
from proxy.guard.protocol import (
    GuardError,
    GuardInfo,
    GuardOverloaded,
    GuardTimeout,
    GuardUnavailable,
    Health,
    SequenceTooLong,
)
from proxy.guard.rows import read_rows
from proxy.guard.runner import Runner
from proxy.guard.settings import Canary, GuardSettings, default_threads
from proxy.risk import Risk, Role

# How exactly deadlines are kept.
SWEEP_SECONDS = 0.05
STOP_SECONDS = 10.0


async def start_guard(
    model: str = EMBEDDED,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    settings: GuardSettings | None = None,
) -> "LocalGuard":
    """Load a guard off the event loop, start its engine, and let it judge its canaries once.

    `model` is "embedded", a folder, or a hub id; see `loader.load_guard` for the rest.
    The caller closes it. Raises GuardUnavailable (CheckpointError is one) with the reason.
    """
    loaded = await asyncio.to_thread(load_guard, model, revision=revision, dtype=dtype, device=device)
    guard = LocalGuard(loaded, settings)
    health = await guard.health()
    if not health.is_ready:
        await guard.close()
        raise GuardUnavailable(f"guard {loaded.info.model} did not pass its first check: {health.detail}")
    return guard


class LocalGuard:
    """A `protocol.Guard` with its engine in a thread of this process. Made and used on one event loop."""

    def __init__(self, loaded: LoadedGuard, settings: GuardSettings | None = None) -> None:
        """Starts the engine. Raises ValueError for settings that cannot work, RuntimeError without a loop."""
        self._settings = settings or GuardSettings()
        self._loop = asyncio.get_running_loop()
        runner = Runner(loaded.model)
        budget = self._settings.kv_bytes or runner.default_budget_bytes()
        shape = loaded.model.architecture
        window = min(shape.window, self._settings.window or shape.window, budget // runner.kv_bytes_per_token)
        self._vocabulary = shape.vocabulary
        self._info = replace(loaded.info, window=window)
        self._engine = Engine(runner, window=window, budget_bytes=budget, limits=self._settings.limits)
        self._streams: dict[int, LocalStream] = {}
        self._waiting: dict[int, tuple[asyncio.Future[bytes], float]] = {}  # ticket -> its future, its deadline
        self._outbox: list[Command] = []
        self._last_number = 0
        self._failure: GuardUnavailable | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        threads = self._settings.threads or default_threads()
        self._thread = EngineThread(self._engine, lambda: runner.use_threads(threads), self._deliver)
        self._thread.start(lambda error: self._call(self._fail, error))

    @property
    def info(self) -> GuardInfo:
        return self._info

    @property
    def streams(self) -> int:
        """Streams that are open at the door; the engine's own count is in `metrics`."""
        return len(self._streams)

    def metrics(self) -> Metrics:
        return self._engine.metrics()

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple["LocalStream", list[Risk]]:
        """See `protocol.Guard`. Also raises ValueError for an id or a read position that does not exist."""
        kept = self.check(ids, 0)
        if read and not 0 <= min(read) <= max(read) < len(kept):
            raise ValueError(f"read positions {list(read)} of {len(kept)} tokens")
        stream = self.add(kept, owner)
        reads = sorted(set(read))
        try:
            command = Open(self.number(), stream.id, kept, reads, role, owner)
            rows = await self.ask(command, self._settings.open_seconds)
            risks = read_rows(rows, len(reads), role)
        except BaseException:
            await stream.close()
            raise
        by_position = dict(zip(reads, risks, strict=True))
        return stream, [by_position[position] for position in read]

    async def health(self) -> Health:
        """See `protocol.Guard`."""
        started = time.perf_counter()
        detail = ""
        try:
            async with asyncio.timeout(self._settings.health_seconds):
                for canary in self._settings.canaries:
                    detail = detail or await self._judge(canary)
        except TimeoutError:
            detail = f"no verdict on the canary text within {self._settings.health_seconds} s"
        except GuardOverloaded:
            detail = "no room for the canary text: the key-value cache is full"
        except (GuardError, ValueError) as exc:
            detail = str(exc)
        seconds = time.perf_counter() - started
        return Health(not detail, detail or f"{self._info.model} judged its canary in {seconds * 1e3:.1f} ms", seconds)

    async def close(self) -> None:
        """See `protocol.Guard`."""
        self._fail(GuardUnavailable("the guard is closed"))
        await asyncio.to_thread(self._thread.stop, STOP_SECONDS)

    # For LocalStream.

    @property
    def verdict_seconds(self) -> float:
        return self._settings.verdict_seconds

    def number(self) -> int:
        """A number never given before, for a stream or a ticket: a late outcome finds nobody else's."""
        self._last_number += 1
        return self._last_number

    def check(self, ids: Sequence[int], position: int) -> list[int]:
        """A list of ids that fits the window at `position`, or SequenceTooLong, or ValueError."""
        kept = list(ids)
        if position + len(kept) > self._info.window:
            raise SequenceTooLong(f"{position + len(kept)} tokens; the guard's window holds {self._info.window}")
        if kept and not 0 <= min(kept) <= max(kept) < self._vocabulary:
            raise ValueError(f"token ids must be within 0 ... {self._vocabulary - 1}")
        return kept

    def add(self, ids: list[int], owner: str) -> "LocalStream":
        if self._failure is not None:
            raise self._failure
        stream = LocalStream(self, self.number(), ids, owner)
        self._streams[stream.id] = stream
        return stream

    def remove(self, stream: "LocalStream", ticket: int | None) -> None:
        """Forget a stream, and the question it still has."""
        if self._streams.pop(stream.id, None) is None:
            return
        self.submit(Close(stream.id))
        if ticket in self._waiting and not self._waiting[ticket][0].done():
            self._waiting[ticket][0].set_exception(GuardUnavailable("the stream was closed"))

    def submit(self, command: Command) -> None:
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(command)

    async def ask(self, command: Open | Feed, seconds: float) -> bytes:
        """Put a question to the engine; forget it there when nobody waits any more."""
        if self._failure is not None:
            raise self._failure
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[command.ticket] = (future, self._loop.time() + seconds)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self.submit(command)
        try:
            return await future
        except (GuardTimeout, asyncio.CancelledError):
            self.submit(Cancel(command.stream, command.ticket))
            raise
        finally:
            self._waiting.pop(command.ticket, None)

    def _flush(self) -> None:
        commands, self._outbox = self._outbox, []
        self._thread.submit(commands)

    def _deliver(self, outcomes: list[Outcome]) -> None:
        self._call(self._receive, outcomes)

    def _call(self, function: Callable[..., None], argument: object) -> None:
        """From the engine's thread to the loop's."""
        # A loop that is closed has nobody waiting.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, argument)

    def _receive(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            future, _ = self._waiting.pop(outcome.ticket, (None, 0.0))
            if future is None or future.done():
                continue
            if outcome.error is None:
                future.set_result(outcome.rows)
            else:
                future.set_exception(outcome.error)

    def _sweep(self) -> None:
        now = self._loop.time()
        for future, deadline in self._waiting.values():
            if deadline <= now and not future.done():
                future.set_exception(GuardTimeout("no verdict within the deadline"))
        is_needed = bool(self._waiting) and self._failure is None
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if is_needed else None

    def _fail(self, error: GuardUnavailable) -> None:
        self._failure = self._failure or error
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()
        self._streams.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    async def _judge(self, canary: Canary) -> str:
        """What is wrong with the verdict on a canary; empty when nothing is."""
        # A small vocabulary has other ids; the canary then only shows that the engine answers.
        ids = [token % self._vocabulary for token in canary.ids]
        stream, (risk,) = await self.open(ids, read=[canary.read], owner="canary")
        try:
            await stream.classify(len(ids), ids[:1])
        finally:
            await stream.close()
        if canary.level not in (None, risk.level):
            return f"the canary text was judged {risk.level}, not {canary.level}"
        return ""


class LocalStream:
    """A `protocol.GuardStream` of a LocalGuard. It keeps the ids; the engine may drop everything else."""

    def __init__(self, guard: LocalGuard, number: int, ids: list[int], owner: str) -> None:
        self.id = number
        self._guard, self._ids, self._owner = guard, ids, owner
        self._is_closed = False
        self._ticket: int | None = None  # of the question under way

    @property
    def position(self) -> int:
        return len(self._ids)

    async def classify(self, position: int, ids: Sequence[int]) -> list[Risk]:
        """See `protocol.GuardStream`. After an error the stream is as it was, cut at `position`."""
        self._check_open()
        if self._ticket is not None:
            raise RuntimeError("the stream is still classifying")
        if not 0 <= position <= len(self._ids):
            raise ValueError(f"position {position} of a stream of {len(self._ids)} tokens")
        kept = self._guard.check(ids, position)
        del self._ids[position:]
        if not kept:
            return []
        self._ticket = ticket = self._guard.number()
        try:
            rows = await self._guard.ask(Feed(ticket, self.id, position, kept), self._guard.verdict_seconds)
        finally:
            self._ticket = None
        risks = read_rows(rows, len(kept), Role.ASSISTANT)
        self._ids += kept
        return risks

    async def fork(self) -> "LocalStream":
        """See `protocol.GuardStream`. Raises GuardUnavailable on a closed stream."""
        self._check_open()
        child = self._guard.add(self._ids.copy(), self._owner)
        self._guard.submit(Fork(self.id, child.id, len(self._ids)))
        return child

    async def close(self) -> None:
        """See `protocol.GuardStream`."""
        self._is_closed = True
        self._guard.remove(self, self._ticket)

    def _check_open(self) -> None:
        if self._is_closed:
            raise GuardUnavailable("the stream is closed")
