"""The async door: any number of callers on one event loop, one engine behind a link.

Commands of one loop tick reach the engine as one batch, outcomes of one step come back as one call: two
wake-ups a step, however many streams there are. The engine runs whatever is queued; while it is busy the
next batch grows by itself. Should an engine lose its memory, every stream is opened again with the ids
that it keeps: those with a question at once, the others when they have one.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from proxy.guard.answer import Answer
from proxy.guard.canary import examine
from proxy.guard.commands import Cancel, Command, Feed, Open, Outcome
from proxy.guard.metrics import SECONDS, Metrics, Recorder
from proxy.guard.protocol import (
    GuardError,
    GuardFault,
    GuardInfo,
    GuardTimeout,
    GuardUnavailable,
    Health,
    SequenceTooLong,
    UnknownStream,
    anew,
)
from proxy.guard.rows import read_rows
from proxy.guard.settings import GuardSettings
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


# Rows, or why there are none.
Told = Callable[[bytes | GuardError], None]


@dataclass(eq=False, slots=True)
class Question:
    """An Open or a Feed that waits for its rows. Told once, and kept no longer."""

    command: Open | Feed
    stream: KeptStream
    told: Told
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
            rows = await self._ask(stream, stream.begin(self.number(), reads, role))
            risks = read_rows(rows, len(reads), role)
        except BaseException:
            await stream.close()
            raise
        by_position = dict(zip(reads, risks, strict=True))
        return stream, [by_position[position] for position in read]

    async def health(self) -> Health:
        """See `protocol.Guard`."""
        return await examine(self, self.settings, self._vocabulary)

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
            question.crashes += question.stream.id in suspects
            if question.crashes > MAX_CRASHES:
                self._tell(question, GuardFault("the guard's engine died twice on this input"))
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
        for question in list(self._questions.values()):
            self._tell(question, anew(error))
        self._streams.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def receive(self, outcomes: Sequence[Outcome]) -> None:
        now = self._loop.time()
        for outcome in outcomes:
            question = self._questions.get(outcome.ticket)
            if question is None:
                continue
            if outcome.error is None:
                (self._opens if isinstance(question.command, Open) else self._lags).add(now - question.asked)
                self._tell(question, outcome.rows)
            elif isinstance(outcome.error, UnknownStream) and not question.is_replayed:
                question.is_replayed = True
                question.stream.epoch = -1
                self._send(question)
            else:
                self._tell(question, anew(outcome.error))

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
        self._streams[stream.id] = stream

    def remove(self, stream: KeptStream) -> None:
        """Forget a stream, and the question it still has."""
        self._streams.pop(stream.id, None)
        question = None if stream.ticket is None else self._questions.get(stream.ticket)
        if question is not None:
            self._tell(question, GuardUnavailable("the stream was closed"))

    def submit(self, command: Command) -> None:
        if self._link is None:
            return  # the next engine knows nothing that the command could be about
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(command)

    def put(self, stream: KeptStream, command: Open | Feed, told: Told) -> None:
        """A question to the engine. `told` is called once, later, unless the question is dropped. Raises GuardError."""
        if self._failure is not None:
            raise anew(self._failure)
        seconds = self.settings.open_seconds if isinstance(command, Open) else self.settings.verdict_seconds
        now = self._loop.time()
        question = Question(command, stream, told, now, now + seconds)
        self._questions[command.ticket] = question
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self._send(question)

    def drop(self, ticket: int) -> None:
        """Nobody waits for the answer any more: forget the question, at the engine too."""
        question = self._questions.pop(ticket, None)
        if question is not None:
            self.submit(Cancel(question.stream.id, ticket))

    async def _ask(self, stream: KeptStream, command: Open | Feed) -> bytes:
        answer = Answer[bytes](lambda: self.drop(command.ticket))
        self.put(stream, command, answer.hear)
        return await answer

    def _tell(self, question: Question, found: bytes | GuardError) -> None:
        """Unless it was dropped meanwhile: who is told may drop others."""
        if self._questions.pop(question.command.ticket, None) is not None:
            question.told(found)

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
        for question in [one for one in self._questions.values() if one.deadline <= now]:
            if question.command.ticket in self._questions:  # who is told may drop others
                self.drop(question.command.ticket)
                question.told(GuardTimeout("no verdict within the deadline"))
        is_needed = bool(self._questions) and self._failure is None
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if is_needed else None
