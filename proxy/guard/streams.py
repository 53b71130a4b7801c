"""One text as the door keeps it: all its ids, so that the engine may lose everything else.

A text that outgrows the guard's window slides: the engine's stream is opened again with the end of the prompt
and the newest tokens. Every token is still judged; what the guard remembers of the beginning is less.
"""

import asyncio
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from proxy.guard.commands import Close, Command, Feed, Fork, Open
from proxy.guard.protocol import GuardError, GuardUnavailable, Heard
from proxy.guard.rows import read_rows
from proxy.risk import Risk, Role

# What a window keeps when it slides. Reading that again must fit a verdict's deadline even on a slow machine.
OVERLAP_TOKENS = 2048
# The prompt's end says what was asked; the first tokens behind it are the frame of the answer's turn.
HEAD_TOKENS = 1024
FRAME_TOKENS = 8


class Door(Protocol):
    """What a stream needs of its service."""

    @property
    def window(self) -> int: ...

    @property
    def epoch(self) -> int:
        """Changes whenever an engine has lost its memory."""

    def check(self, ids: Sequence[int]) -> list[int]: ...

    def number(self) -> int: ...

    def submit(self, command: Command) -> None: ...

    def add(self, stream: "KeptStream") -> None: ...

    def remove(self, stream: "KeptStream") -> None: ...

    def put(self, stream: "KeptStream", command: Open | Feed, told: Callable[[bytes | GuardError], None]) -> None: ...

    def drop(self, ticket: int) -> None: ...


class Asked:
    """Tokens that are asked of, whose risks come piece by piece."""

    def __init__(self, position: int, ids: list[int], heard: Heard) -> None:
        self.position, self.ids, self.heard = position, ids, heard
        self.risks: list[Risk] = []  # of the first of `ids`


class KeptStream:
    """A `protocol.GuardStream`."""

    def __init__(self, door: Door, ids: Sequence[int], owner: str, prompt_tokens: int) -> None:
        self.id = door.number()
        self.owner = owner
        self.epoch = -1  # of the engine that has this stream; -1: none has
        self.slides = 0  # see `protocol.GuardStream`
        self.ticket: int | None = None  # of the question under way
        self._asked: Asked | None = None  # that it is a part of
        self._door = door
        self._ids = array("I", ids)  # of a long prompt: as a list of numbers they take nine times the memory
        self._prompt_tokens = prompt_tokens
        self._is_closed = False
        # The engine's stream is ids[head] + ids[tail:].
        self._head = slice(0, 0)
        self._tail = 0
        door.add(self)

    @property
    def position(self) -> int:
        return len(self._ids)

    def ask(self, position: int, ids: Sequence[int], heard: Heard) -> None:
        """See `protocol.GuardStream`. `heard` raises nothing, or others of the same step would not hear theirs."""
        try:
            self._check_open()
            if self._asked is not None:
                raise RuntimeError("the stream is still classifying")
            if not 0 <= position <= len(self._ids):
                raise ValueError(f"position {position} of a stream of {len(self._ids)} tokens")
            kept = self._door.check(ids)
            del self._ids[position:]
            if kept:
                self._feed(kept)
        except (GuardError, ValueError, RuntimeError) as exc:
            heard(exc.with_traceback(None))
            return
        if kept:
            self._asked = Asked(position, kept, heard)
        else:
            heard([])

    def give_up(self) -> None:
        """See `protocol.GuardStream`."""
        asked, self._asked = self._asked, None
        ticket, self.ticket = self.ticket, None
        if asked is not None:
            del self._ids[asked.position :]
        if ticket is not None:
            self._door.drop(ticket)

    def fork(self) -> "KeptStream":
        """See `protocol.GuardStream`. Raises GuardUnavailable on a closed stream."""
        child = self.copy(self._door)
        if self.epoch == self._door.epoch:
            self._door.submit(Fork(self.id, child.id, self._place(len(self._ids))))
            child.epoch = self.epoch
        return child

    def copy(self, door: Door) -> "KeptStream":
        """The same text at a door whose engine does not have it yet. Raises GuardUnavailable on a closed stream."""
        self._check_open()
        child = KeptStream(door, self._ids, self.owner, self._prompt_tokens)
        child._head, child._tail, child.slides = self._head, self._tail, self.slides
        return child

    def close(self) -> "asyncio.Future[None]":
        """See `protocol.GuardStream`."""
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        closed.set_result(None)
        if not self._is_closed:
            self._is_closed = True
            self._door.remove(self)
            if self.epoch == self._door.epoch:
                self._door.submit(Close(self.id))
        return closed

    def begin(self, ticket: int, reads: list[int], role: Role) -> Open:
        """The command that opens the engine's stream for the first time."""
        return Open(ticket, self.id, self._ids.tolist(), reads, role, self.owner)

    def replay(self, question: Open | Feed, *, is_alone: bool) -> Open:
        """The same question for an engine that does not have this stream."""
        if isinstance(question, Open):
            is_replay, reads, ids = question.is_replay, question.reads, question.ids
        else:
            ids = self._seen(question.position) + question.ids
            is_replay, reads = True, list(range(question.position, len(ids)))
        return Open(question.ticket, self.id, ids, reads, question.role, self.owner, is_replay, is_alone)

    def _feed(self, left: list[int]) -> None:
        """Ask of as many of the tokens as the window takes in one go, at least one. Raises GuardError."""
        start = len(self._ids)
        if start < self._tail or self._place(start) >= self._door.window:
            self._slide(start)
        place = self._place(start)
        left = left[: self._door.window - place]
        ticket = self._door.number()
        self._door.put(self, Feed(ticket, self.id, place, left), partial(self._told, left))
        self.ticket = ticket

    def _told(self, ids: list[int], found: bytes | GuardError) -> None:
        asked, self.ticket = self._asked, None
        assert asked is not None  # who gives up drops the question
        try:
            if not isinstance(found, bytes):
                raise found
            asked.risks += read_rows(found, len(ids), Role.ASSISTANT)
            self._ids.extend(ids)
            if len(asked.risks) < len(asked.ids):
                self._feed(asked.ids[len(asked.risks) :])
                return
        except GuardError as exc:
            del self._ids[asked.position :]
            self._asked = None
            asked.heard(exc.with_traceback(None))  # whose frames would keep the question for the collector
            return
        self._asked = None
        asked.heard(asked.risks)

    def _place(self, position: int) -> int:
        """A position of the text in the engine's stream."""
        return position - self._tail + (self._head.stop - self._head.start)

    def _seen(self, place: int) -> list[int]:
        """The first tokens of the engine's stream."""
        return (self._ids[self._head] + self._ids[self._tail :])[:place].tolist()

    def _slide(self, end: int) -> None:
        """Begin the engine's stream anew with the prompt's end and the newest tokens before `end`."""
        window = self._door.window
        head = min(HEAD_TOKENS, window // 8)
        frame_end = min(self._prompt_tokens + FRAME_TOKENS, end)
        self._tail = max(0, end - min(OVERLAP_TOKENS, window // 4))
        head_end = min(frame_end, self._tail)
        self._head = slice(max(0, head_end - head), head_end)
        if self._head.stop == self._tail:  # nothing lies between them
            self._tail, self._head = self._head.start, slice(0, 0)
        self.epoch = -1
        self.slides += 1

    def _check_open(self) -> None:
        if self._is_closed:
            raise GuardUnavailable("the stream is closed")
