"""One text as the door keeps it: all its ids, so that the engine may lose everything else.

A text that outgrows the guard's window slides: the engine's stream is opened again with the end of the prompt
and the newest tokens. Every token is still judged; what the guard remembers of the beginning is less.
"""

from collections.abc import Sequence
from typing import Protocol

from proxy.guard.commands import Close, Command, Feed, Fork, Open
from proxy.guard.protocol import GuardUnavailable
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

    async def ask(self, stream: "KeptStream", question: Open | Feed) -> bytes: ...


class KeptStream:
    """A `protocol.GuardStream`."""

    def __init__(self, door: Door, ids: list[int], owner: str, prompt_tokens: int) -> None:
        self.id = door.number()
        self.owner = owner
        self.epoch = -1  # of the engine that has this stream; -1: none has
        self.slides = 0  # see `protocol.GuardStream`
        self.ticket: int | None = None  # of the question under way
        self._door, self._ids = door, ids
        self._prompt_tokens = prompt_tokens
        self._is_closed = False
        # The engine's stream is ids[head] + ids[tail:].
        self._head = slice(0, 0)
        self._tail = 0
        door.add(self)

    @property
    def position(self) -> int:
        return len(self._ids)

    async def classify(self, position: int, ids: Sequence[int]) -> list[Risk]:
        """See `protocol.GuardStream`. After an error the stream is as it was, cut at `position`."""
        self._check_open()
        if self.ticket is not None:
            raise RuntimeError("the stream is still classifying")
        if not 0 <= position <= len(self._ids):
            raise ValueError(f"position {position} of a stream of {len(self._ids)} tokens")
        kept = self._door.check(ids)
        del self._ids[position:]
        risks: list[Risk] = []
        try:
            while len(risks) < len(kept):
                risks += await self._feed(kept[len(risks) :])
        except BaseException:
            del self._ids[position:]
            raise
        return risks

    async def fork(self) -> "KeptStream":
        """See `protocol.GuardStream`. Raises GuardUnavailable on a closed stream."""
        self._check_open()
        child = self.copy(self._door)
        if self.epoch == self._door.epoch:
            self._door.submit(Fork(self.id, child.id, self._place(len(self._ids))))
            child.epoch = self.epoch
        return child

    def copy(self, door: Door) -> "KeptStream":
        """The same text at a door whose engine does not have it yet. Raises GuardUnavailable where it has failed."""
        child = KeptStream(door, self._ids.copy(), self.owner, self._prompt_tokens)
        child._head, child._tail, child.slides = self._head, self._tail, self.slides
        return child

    async def close(self) -> None:
        """See `protocol.GuardStream`."""
        if not self._is_closed:
            self._is_closed = True
            self._door.remove(self)
            if self.epoch == self._door.epoch:
                self._door.submit(Close(self.id))

    def begin(self, ticket: int, reads: list[int], role: Role) -> Open:
        """The command that opens the engine's stream for the first time."""
        return Open(ticket, self.id, self._ids, reads, role, self.owner)

    def replay(self, question: Open | Feed, *, is_alone: bool) -> Open:
        """The same question for an engine that does not have this stream."""
        if isinstance(question, Open):
            is_replay, reads, ids = question.is_replay, question.reads, question.ids
        else:
            ids = self._seen(question.position) + question.ids
            is_replay, reads = True, list(range(question.position, len(ids)))
        return Open(question.ticket, self.id, ids, reads, question.role, self.owner, is_replay, is_alone)

    async def _feed(self, ids: list[int]) -> list[Risk]:
        """Judge as many of the tokens as the window takes in one go; at least one."""
        start = len(self._ids)
        if start < self._tail or self._place(start) >= self._door.window:
            self._slide(start)
        place = self._place(start)
        ids = ids[: self._door.window - place]
        self.ticket = ticket = self._door.number()
        try:
            rows = await self._door.ask(self, Feed(ticket, self.id, place, ids))
        finally:
            self.ticket = None
        risks = read_rows(rows, len(ids), Role.ASSISTANT)
        self._ids += ids
        return risks

    def _place(self, position: int) -> int:
        """A position of the text in the engine's stream."""
        return position - self._tail + (self._head.stop - self._head.start)

    def _seen(self, place: int) -> list[int]:
        """The first tokens of the engine's stream."""
        return (self._ids[self._head] + self._ids[self._tail :])[:place]

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
