"""Between the door and a guard that is not ours: one session a stream, which grows and can do nothing else.

The door's streams are forked and taken back. Where a session cannot follow, its stream is unknown here, and the door
opens it again with all its tokens: the way in which it gets over a lost engine, too.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.guard.commands import Cancel, Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.metrics import Metrics
from proxy.guard.protocol import GuardError, GuardFault, UnknownStream
from proxy.risk import Role


class SessionLost(Exception):
    """The other side does not have the session any more."""


class Disconnected(Exception):
    """The other side is gone, and every session with it."""


# For sessions to end when the guard does.
STOP_SECONDS = 5.0


class Session(Protocol):
    """One text's memory in the other guard. One call at a time."""

    async def extend(self, ids: Sequence[int], reads: Sequence[int], role: Role) -> bytes:
        """Read more tokens; the rows (see `rows`) of those at `reads`, positions within `ids` in rising order.

        Raises SessionLost, Disconnected, and GuardError where there is no verdict.
        """

    async def close(self) -> None:
        """Free it. Called once, whatever happened before; must not raise."""


@dataclass(eq=False, slots=True)
class Held:
    """A stream of the door's with its session."""

    session: Session
    position: int = 0  # tokens that the session has read
    ticket: int | None = None  # of the question under way
    asking: asyncio.Task[None] | None = field(default=None, repr=False)


class SessionLink:
    """A `door.Link`. Made and used on one event loop."""

    def __init__(
        self,
        begin: Callable[[], Session],
        deliver: Callable[[list[Outcome]], None],
        on_disconnect: Callable[[], None] | None = None,
    ) -> None:
        """`begin` makes a session that has read nothing; `deliver` is called with what was answered.

        `on_disconnect` is called when the other side is gone: questions are then left to the door's next engine.
        """
        self._begin, self._deliver, self._on_disconnect = begin, deliver, on_disconnect
        self._held: dict[int, Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._questions = self._tokens = self._faults = 0

    def submit(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Open():
                    self._drop(command.stream)
                    held = self._held[command.stream] = Held(self._begin())
                    self._ask(command, held, command.reads)
                case Feed():
                    self._feed(command)
                case Fork(stream, child, position):
                    self._fork(stream, child, position)
                case Cancel(stream, ticket):
                    asked = self._held.get(stream)
                    if asked is not None and asked.ticket == ticket:
                        self._drop(stream)  # how much of it was read, nobody knows
                case Close(stream):
                    self._drop(stream)

    def metrics(self) -> Metrics:
        waiting = sum(held.ticket is not None for held in self._held.values())
        return Metrics(
            streams=len(self._held),
            queue_depth=waiting,
            steps=self._questions,
            tokens=self._tokens,
            faults=self._faults,
        )

    async def close(self) -> None:
        """End all sessions; those that take too long are left to themselves."""
        for stream in list(self._held):
            self._drop(stream)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()

    def _feed(self, command: Feed) -> None:
        held = self._held.get(command.stream)
        if held is None or held.ticket is not None or held.position != command.position:
            error = UnknownStream("the guard does not have this stream's session")
            self._deliver([Outcome(command.ticket, error=error)])
        else:
            self._ask(command, held, range(len(command.ids)))

    def _fork(self, stream: int, child: int, position: int) -> None:
        """The child takes the session over: most prompts have one answer, and are not fed themselves."""
        held = self._held.get(stream)
        if held is not None and held.ticket is None and held.position == position:
            self._drop(child)
            self._held[child] = self._held.pop(stream)

    def _ask(self, command: Open | Feed, held: Held, reads: Sequence[int]) -> None:
        held.ticket = command.ticket
        held.asking = self._start(self._answer(command, held, reads))

    async def _answer(self, command: Open | Feed, held: Held, reads: Sequence[int]) -> None:
        self._questions += 1
        outcome: Outcome | None
        try:
            rows = await held.session.extend(command.ids, reads, command.role)
            held.position += len(command.ids)
            self._tokens += len(command.ids)
            outcome = Outcome(command.ticket, rows)
        except Disconnected:
            outcome = None
        except SessionLost:
            outcome = Outcome(command.ticket, error=UnknownStream("the guard has lost this stream's session"))
        except GuardError as exc:
            outcome = Outcome(command.ticket, error=exc)
        except Exception as exc:
            # Code that is not ours may raise anything, with the text in its words.
            outcome = Outcome(command.ticket, error=GuardFault(f"the guard failed on this input: {type(exc).__name__}"))
        held.ticket = held.asking = None
        if outcome is None or outcome.error is not None:
            self._drop(command.stream)
        if outcome is not None:
            self._faults += isinstance(outcome.error, GuardFault)
            self._deliver([outcome])
        elif self._on_disconnect is not None:
            self._on_disconnect()

    def _drop(self, stream: int) -> None:
        held = self._held.pop(stream, None)
        if held is not None:
            self._start(_end(held))

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        # It lives at most as long as the link: `close` waits for it.
        task = asyncio.get_running_loop().create_task(work, name="guard-session")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _end(held: Held) -> None:
    if held.asking is not None:
        held.asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await held.asking
    await held.session.close()
