"""Between doors and a guard that keeps no streams: here each is its ids, and every question tells them from the start.

What the guard remembers of a text's beginning is its own matter, and saves it the work. So nothing is lost with it,
and any other guard of the same model can go on with a text.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.guard.commands import Cancel, Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.metrics import SECONDS, Metrics, Recorder
from proxy.guard.protocol import GuardError, GuardFault, SequenceTooLong, UnknownStream
from proxy.guard.sessions import Disconnected
from proxy.risk import Role

Deliver = Callable[[list[Outcome]], None]


@dataclass(frozen=True, slots=True)
class Verdicts:
    rows: bytes  # see `rows`
    computed: int  # tokens, those included whose rows were not asked for


class Reader(Protocol):
    """The guard. Any number of calls at once; each may be cancelled."""

    async def read(self, ids: Sequence[int], reads: Sequence[int], role: Role, salt: str) -> Verdicts:
        """The rows of the tokens at `reads`, in rising order. What has been read with the same salt may be remembered.

        Raises GuardError where there is no verdict, and Disconnected where there will be none any more.
        """


@dataclass(eq=False, slots=True)
class Text:
    """A stream of a door's."""

    salt: str  # a fork has that of its stream: they are of one request, and begin alike
    ids: list[int]
    ticket: int | None = None  # of the question under way
    asking: asyncio.Task[None] | None = field(default=None, repr=False)


class Texts:
    """The guard as a whole, with a link for each door. Made and used on one event loop."""

    def __init__(self, reader: Reader, window: int, vocabulary: int, on_dead: Callable[[], None]) -> None:
        """`on_dead` is called, once or more often, when the guard is gone: the questions are then left to its next."""
        self.reader, self.window, self.vocabulary, self.on_dead = reader, window, vocabulary, on_dead
        self.links: set[TextLink] = set()
        self._waiting = 0
        self._since = 0.0  # when the last answer came, or the first question after a rest
        self._before = 0.0  # seconds of waiting before that rest, all without an answer
        self._questions = self._tokens = self._replays = self._again = self._faults = 0
        self._lags, self._opens = Recorder(SECONDS), Recorder(SECONDS)

    @property
    def silent_seconds(self) -> float:
        """For how long in all somebody has waited since the last answer; who gave up is counted up to then."""
        return self._before + time.monotonic() - self._since if self._waiting else 0.0

    def link(self, deliver: Deliver) -> "TextLink":
        """For one door; whoever has it closes it."""
        link = TextLink(self, deliver)
        self.links.add(link)
        return link

    def metrics(self) -> Metrics:
        return Metrics(
            streams=sum(len(link.texts) for link in self.links),
            queue_depth=self._waiting,
            steps=self._questions,
            tokens=self._tokens,
            replays=self._replays,
            replayed_tokens=self._again,
            faults=self._faults,
            lag_seconds=self._lags.read(),
            open_seconds=self._opens.read(),
        )

    # For links.

    async def answer(self, question: Open | Feed, ids: list[int], reads: Sequence[int], salt: str) -> bytes:
        """The rows. Raises GuardError and Disconnected."""
        if ids and not 0 <= min(ids) <= max(ids) < self.vocabulary:
            raise GuardFault("an id that the guard does not have")  # it would kill it
        if len(ids) > self.window:
            raise SequenceTooLong(f"{len(ids)} tokens; the guard's window holds {self.window}")
        if not ids:
            return b""
        started = self._begin()
        has_answered = True
        try:
            found = await self.reader.read(ids, reads, question.role, salt)
        except GuardFault:
            self._faults += 1
            raise
        except asyncio.CancelledError:
            has_answered = False
            raise
        finally:
            self._end(has_answered=has_answered)
        is_replay = isinstance(question, Open) and question.is_replay
        self._count(found.computed, len(reads) if is_replay else len(question.ids), is_replay=is_replay)
        (self._opens if isinstance(question, Open) else self._lags).add(time.monotonic() - started)
        return found.rows

    def _begin(self) -> float:
        now = time.monotonic()
        if not self._waiting:
            self._since = now
        self._waiting += 1
        return now

    def _end(self, *, has_answered: bool) -> None:
        now = time.monotonic()
        self._waiting -= 1
        if has_answered:
            self._since, self._before = now, 0.0
        elif not self._waiting:
            self._before += now - self._since

    def _count(self, computed: int, new: int, *, is_replay: bool) -> None:
        self._questions += 1
        self._tokens += new
        self._replays += is_replay
        self._again += max(0, computed - new)


class TextLink:
    """A `door.Link`."""

    def __init__(self, guard: Texts, deliver: Deliver) -> None:
        self._guard, self._deliver = guard, deliver
        self.texts: dict[int, Text] = {}

    def submit(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Open():
                    self._drop(command.stream)
                    # Nobody can guess it, so nobody learns by the time of an answer what others have asked.
                    text = self.texts[command.stream] = Text(secrets.token_hex(16), [])
                    self._ask(command, text, command.reads)
                case Feed():
                    self._feed(command)
                case Fork(stream, child, position):
                    self._fork(stream, child, position)
                case Cancel(stream, ticket):
                    asked = self.texts.get(stream)
                    if asked is not None and asked.ticket == ticket:
                        _stop(asked)
                case Close(stream):
                    self._drop(stream)

    def metrics(self) -> Metrics:
        """Of the guard, for all doors."""
        return self._guard.metrics()

    def close(self) -> None:
        for stream in list(self.texts):
            self._drop(stream)
        self._guard.links.discard(self)

    def _feed(self, command: Feed) -> None:
        text = self.texts.get(command.stream)
        if text is None or text.ticket is not None or command.position > len(text.ids):
            error = UnknownStream("the guard does not have this stream")
            self._deliver([Outcome(command.ticket, error=error)])
            return
        del text.ids[command.position :]
        self._ask(command, text, range(command.position, command.position + len(command.ids)))

    def _fork(self, stream: int, child: int, position: int) -> None:
        text = self.texts.get(stream)
        if text is not None and position <= len(text.ids):
            self._drop(child)
            self.texts[child] = Text(text.salt, text.ids[:position])

    def _ask(self, command: Open | Feed, text: Text, reads: Sequence[int]) -> None:
        text.ticket = command.ticket
        # It lives at most as long as the text: `close` ends it.
        text.asking = asyncio.get_running_loop().create_task(self._answer(command, text, reads), name="guard-text")

    async def _answer(self, command: Open | Feed, text: Text, reads: Sequence[int]) -> None:
        ids = text.ids + command.ids
        try:
            rows = await self._guard.answer(command, ids, reads, text.salt)
            outcome = Outcome(command.ticket, rows)
            text.ids = ids
        except Disconnected:
            self._guard.on_dead()
            return
        except GuardError as exc:
            outcome = Outcome(command.ticket, error=exc)
        except Exception as exc:
            # Code that is not ours may raise anything, with the text in its words.
            outcome = Outcome(command.ticket, error=GuardFault(f"the guard failed on this input: {type(exc).__name__}"))
        text.ticket = text.asking = None
        self._deliver([outcome])

    def _drop(self, stream: int) -> None:
        text = self.texts.pop(stream, None)
        if text is not None:
            _stop(text)


def _stop(text: Text) -> None:
    if text.asking is not None:
        text.asking.cancel()
    text.ticket = text.asking = None
