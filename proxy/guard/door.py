"""The async door: any number of callers on one event loop, one engine behind a link.

Commands of one loop tick reach the engine as one batch, outcomes of one step come back as one call: two
wake-ups a step, however many streams there are. The engine runs whatever is queued; while it is busy the
next batch grows by itself. Should an engine lose its memory, every stream is opened again with the ids
that it keeps: those with a question at once, the others when they have one.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from proxy.guard.commands import Cancel, Command, Feed, Open, Outcome
from proxy.guard.metrics import SECONDS, Metrics, Recorder
from proxy.guard.protocol import (
    GuardError,
    GuardFault,
    GuardInfo,
    GuardOverloaded,
    GuardTimeout,
    GuardUnavailable,
    Health,
    SequenceTooLong,
    UnknownStream,
    anew,
)
from proxy.guard.rows import read_rows
from proxy.guard.settings import Canary, GuardSettings
from proxy.guard.streams import KeptStream
from proxy.risk import Risk, Role

# How exactly deadlines are kept.
SWEEP_SECONDS = 0.05
# An engine that died in a step with a question gets it once more, alone; that it dies again is the question's fault.
MAX_CRASHES = 1


class Link(Protocol):
    """The way to an engine."""

    def submit(self, commands: list[Command]) -> None: ...

    def metrics(self) -> Metrics: ...


@dataclass(eq=False, slots=True)
class Question:
    """An Open or a Feed that waits for its rows."""

    command: Open | Feed
    stream: KeptStream
    answer: asyncio.Future[bytes]
    asked: float  # of the loop's clock, as is the deadline
    deadline: float
    crashes: int = 0
    is_replayed: bool = False


class GuardDoor:
    """A `protocol.Guard`. Made and used on one event loop; whoever owns the link tells it what happens there."""

    def __init__(self, settings: GuardSettings) -> None:
        """Raises RuntimeError without a running loop."""
        self.settings = settings
        self.epoch = 0
        self._loop = asyncio.get_running_loop()
        self._info: GuardInfo | None = None
        self._vocabulary = 0
        self._link: Link | None = None  # None: no engine just now
        self._failure: GuardUnavailable | None = None
        self._streams: dict[int, KeptStream] = {}
        self._questions: dict[int, Question] = {}  # by ticket
        self._outbox: list[Command] = []
        self._last_number = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._lags, self._opens = Recorder(SECONDS), Recorder(SECONDS)

    # `protocol.Guard`.

    @property
    def info(self) -> GuardInfo:
        assert self._info is not None  # nobody has a guard before its first engine is there
        return self._info

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple[KeptStream, list[Risk]]:
        """See `protocol.Guard`. Also raises ValueError for an id or a read position that does not exist."""
        kept = self.check(ids)
        if len(kept) > self.window:
            raise SequenceTooLong(f"{len(kept)} tokens; the guard's window holds {self.window}")
        if read and not 0 <= min(read) <= max(read) < len(kept):
            raise ValueError(f"read positions {list(read)} of {len(kept)} tokens")
        if self._failure is not None:
            raise anew(self._failure)
        stream = KeptStream(self, kept, owner, len(kept))
        reads = sorted(set(read))
        try:
            rows = await self.ask(stream, stream.begin(self.number(), reads, role))
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
            async with asyncio.timeout(self.settings.health_seconds):
                for canary in self.settings.canaries:
                    detail = detail or await self._judge(canary)
        except TimeoutError:
            detail = f"no verdict on the canary text within {self.settings.health_seconds} s"
        except GuardOverloaded:
            detail = "no room for the canary text: the key-value cache is full"
        except (GuardError, ValueError) as exc:
            detail = str(exc)
        seconds = time.perf_counter() - started
        return Health(not detail, detail or f"{self.info.model} judged its canary in {seconds * 1e3:.1f} ms", seconds)

    async def close(self) -> None:
        """See `protocol.Guard`. The engine stays; whoever owns the link ends it."""
        self.failed(GuardUnavailable("the guard is closed"))

    @property
    def streams(self) -> int:
        """Streams that are open at the door; the engine's own count is in `metrics`."""
        return len(self._streams)

    @property
    def has_suspects(self) -> bool:
        """Whether a question waits that an engine died with."""
        return any(question.crashes for question in self._questions.values())

    def metrics(self) -> Metrics:
        """The engine's newest, zeros while there is none, and this door's own waits."""
        found = Metrics() if self._link is None else self._link.metrics()
        return msgspec.structs.replace(found, door_lag_seconds=self._lags.read(), door_open_seconds=self._opens.read())

    # For the link's owner.

    def connected(self, link: Link, info: GuardInfo, vocabulary: int, suspects: Sequence[int] = ()) -> None:
        """An engine without any memory of ours is there. `suspects` were in the step in which the last one died."""
        self._link, self._info, self._vocabulary = link, info, vocabulary
        self.epoch += 1
        for question in list(self._questions.values()):
            if question.answer.done():
                continue
            question.crashes += question.stream.id in suspects
            if question.crashes > MAX_CRASHES:
                question.answer.set_exception(GuardFault("the guard's engine died twice on this input"))
            else:
                self._send(question)

    def disconnected(self) -> None:
        """The engine is gone. Questions wait for the next one, or for their deadlines."""
        self._link = None
        self._outbox.clear()

    def failed(self, error: GuardUnavailable) -> None:
        """There will be no engine any more."""
        self._failure = self._failure or error
        self.disconnected()
        for question in self._questions.values():
            if not question.answer.done():
                question.answer.set_exception(anew(error))
        self._questions.clear()
        self._streams.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def receive(self, outcomes: Sequence[Outcome]) -> None:
        now = self._loop.time()
        for outcome in outcomes:
            question = self._questions.get(outcome.ticket)
            if question is None or question.answer.done():
                continue
            if isinstance(outcome.error, UnknownStream) and not question.is_replayed:
                question.is_replayed = True
                question.stream.epoch = -1
                self._send(question)
            elif outcome.error is None:
                question.answer.set_result(outcome.rows)
                (self._opens if isinstance(question.command, Open) else self._lags).add(now - question.asked)
            else:
                question.answer.set_exception(anew(outcome.error))

    # For KeptStream.

    @property
    def window(self) -> int:
        return self.info.window

    def number(self) -> int:
        """A number never given before, for a stream or a ticket: a late outcome finds nobody else's."""
        self._last_number += 1
        return self._last_number

    def check(self, ids: Sequence[int]) -> list[int]:
        """A list of ids that exist, or ValueError."""
        kept = list(ids)
        if kept and not 0 <= min(kept) <= max(kept) < self._vocabulary:
            raise ValueError(f"token ids must be within 0 ... {self._vocabulary - 1}")
        return kept

    def add(self, stream: KeptStream) -> None:
        if self._failure is not None:
            raise anew(self._failure)
        self._streams[stream.id] = stream

    def remove(self, stream: KeptStream) -> None:
        """Forget a stream, and the question it still has."""
        self._streams.pop(stream.id, None)
        question = None if stream.ticket is None else self._questions.get(stream.ticket)
        if question is not None and not question.answer.done():
            question.answer.set_exception(GuardUnavailable("the stream was closed"))

    def submit(self, command: Command) -> None:
        if self._link is None:
            return  # the next engine knows nothing that the command could be about
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(command)

    async def ask(self, stream: KeptStream, command: Open | Feed) -> bytes:
        """Put a question to the engine; forget it there when nobody waits any more."""
        if self._failure is not None:
            raise anew(self._failure)
        is_new = isinstance(command, Open)
        seconds = self.settings.open_seconds if is_new else self.settings.verdict_seconds
        answer: asyncio.Future[bytes] = self._loop.create_future()
        now = self._loop.time()
        question = Question(command, stream, answer, now, now + seconds)
        self._questions[command.ticket] = question
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self._send(question)
        try:
            return await answer
        except (GuardTimeout, asyncio.CancelledError):
            self.submit(Cancel(stream.id, command.ticket))
            raise
        finally:
            self._questions.pop(command.ticket, None)

    def _send(self, question: Question) -> None:
        if self._link is None:
            return  # `connected` sends what waits
        stream, command = question.stream, question.command
        if stream.epoch != self.epoch:
            stream.epoch = self.epoch
            command = stream.replay(command, is_alone=question.crashes > 0)
        self.submit(command)

    def _flush(self) -> None:
        commands, self._outbox = self._outbox, []
        if commands and self._link is not None:
            self._link.submit(commands)

    def _sweep(self) -> None:
        now = self._loop.time()
        for question in self._questions.values():
            if question.deadline <= now and not question.answer.done():
                question.answer.set_exception(GuardTimeout("no verdict within the deadline"))
        is_needed = bool(self._questions) and self._failure is None
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if is_needed else None

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


async def check_guard(guard: GuardDoor) -> None:
    """Raises GuardUnavailable, with the guard closed, unless it judges its canaries."""
    health = await guard.health()
    if not health.is_ready:
        await guard.close()
        raise GuardUnavailable(f"guard {guard.info.model} did not pass its first check: {health.detail}")
