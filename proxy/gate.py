"""Hold pieces in order, release what was cleared.

Within a choice every piece waits for the pieces before it. Choices do not wait for each other. A
piece of the whole response (usage, the end) waits for all that arrived before it. A tool call, if calls
are to stay whole, waits for its own end: agents mend a call that was cut, and run it.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from adapters.base import WHOLE_KINDS, Delta, End, Finish, Key, Opaque, Piece, call_of
from proxy.hold_times import Timing
from proxy.structs import Held

# Held text is bounded by what arrives while one batch is judged; this is far above it and stops
# an upstream that opens channels without end.
MAX_HELD_CHARACTERS = 4 << 20
# A piece takes a kilobyte however short its text: this many are a tool call of as many tokens, which no model writes.
MAX_HELD_PIECES = 1 << 17
# They are counted whenever so many have come.
COUNTED_PIECES: Final = 1 << 14
# A longer text leaves as several, since a text is copied whenever more of it is cleared.
MAX_PART_CHARACTERS: Final = 8192


class HeldTooMuch(Exception):
    """More text waits for verdicts than the gate may hold."""


@dataclass(slots=True)
class _Text:
    """Characters of a channel, counted from its first."""

    received: int = 0
    judged: int = 0
    cleared: int = 0
    released: int = 0


@dataclass(slots=True)
class _Call:
    """A tool call that leaves whole: its name, its arguments."""

    is_open: bool = True  # more of it may come
    texts: list[_Text] = field(default_factory=list)

    @property
    def is_cleared(self) -> bool:
        return not self.is_open and all(text.cleared >= text.received for text in self.texts)


class Gate:
    def __init__(self, max_held: int, *, whole_calls: bool = False, timing: Timing | None = None) -> None:
        self._max_held = max_held
        self._timing = timing
        self._whole_calls = whole_calls
        self._calls: dict[tuple[int, str], _Call] = {}
        self._call_of: dict[Key, _Call] = {}  # of a text that is a part of one
        self._open_calls: dict[int, _Call] = {}  # the newest of a choice
        self._queues: dict[int | None, deque[Held]] = {}
        self._serial = 0
        self._texts: dict[Key, _Text] = {}
        # Which was looked up last, since nearly always the next is the same.
        self._newest_key: Key | None = None
        self._newest: _Text | None = None
        self.held = 0  # characters received and not yet released

    def hold(self, piece: Piece) -> None:
        """Raises HeldTooMuch."""
        choice = None if isinstance(piece, End) else piece.key.choice if isinstance(piece, Delta) else piece.choice
        queue = self._queues.get(choice)
        if queue is None:
            queue = self._queues[choice] = deque()
        at = 0.0 if self._timing is None else self._timing.arrived()
        if isinstance(piece, Delta) and len(piece.text) > MAX_PART_CHARACTERS:
            for part in piece.parts(MAX_PART_CHARACTERS):
                self._put(queue, part, at)
        else:
            self._put(queue, piece, at)
        if isinstance(piece, Delta):
            self._receive(piece)
            self.held += len(piece.text)
            if self.held > self._max_held:
                raise HeldTooMuch(f"more than {self._max_held} characters wait for verdicts")
        elif not isinstance(piece, Opaque):
            self._close_calls(choice)

    def _put(self, queue: deque[Held], piece: Piece, at: float) -> None:
        self._serial += 1
        queue.append(Held(self._serial, piece, at))
        if self._serial % COUNTED_PIECES == 0:
            self._count()

    def _count(self) -> None:
        if sum(map(len, self._queues.values())) > MAX_HELD_PIECES:
            raise HeldTooMuch(f"more than {MAX_HELD_PIECES} pieces wait for verdicts")

    def _receive(self, delta: Delta) -> None:
        text = self._text(delta.key)
        text.received += len(delta.text)
        if not self._call_of:
            return
        choice, call = delta.key.choice, self._call_of.get(delta.key)
        if self._open_calls.get(choice) is not call:
            self._close_calls(choice)
        if call is not None:
            call.is_open = True
            self._open_calls[choice] = call

    def _text(self, key: Key) -> _Text:
        newest = self._newest
        if newest is None or self._newest_key is not key:
            newest = self._newest = self._texts.get(key) or self._begin(key)
            self._newest_key = key
        return newest

    def _begin(self, key: Key) -> _Text:
        text = self._texts[key] = _Text()
        name = call_of(key) if self._whole_calls else None
        if name is not None:
            call = self._call_of[key] = self._calls.setdefault((key.choice, name), _Call())
            call.texts.append(text)
        return text

    def _close_calls(self, choice: int | None) -> None:
        """Of a choice, or of all: the call before is over once something else is said."""
        for one in list(self._open_calls) if choice is None else (choice,):
            call = self._open_calls.pop(one, None)
            if call is not None:
                call.is_open = False

    def clear(self, key: Key, judged: int, ahead: int = 0) -> None:
        """Allow the first `judged + ahead` characters of a channel, of which `judged` have their verdict.

        What was allowed stays allowed.
        """
        text = self._text(key)
        if judged > text.judged:
            text.judged = judged
        if judged + ahead > text.cleared:
            text.cleared = judged + ahead

    def released(self, key: Key) -> int:
        """Characters of a channel that have left."""
        text = self._texts.get(key)
        return 0 if text is None else text.released

    @property
    def is_empty(self) -> bool:
        """Has every piece of every choice left?"""
        return not any(queue for choice, queue in self._queues.items() if choice is not None)

    def drop(self, choice: int) -> None:
        """Throw away what a choice still holds."""
        for held in self._queues.pop(choice, ()):
            if isinstance(held.piece, Delta):
                self.held -= len(held.piece.text)

    def release(self) -> list[Held]:
        """What may leave now, in order."""
        released: list[Held] = []
        for choice, queue in self._queues.items():
            if queue and choice is not None:
                self._release_choice(choice, queue, released)
        shared = self._queues.get(None)
        while shared and self._is_next(shared[0]):
            released.append(shared.popleft())
        return released

    def _is_next(self, shared: Held) -> bool:
        """Has all before a piece of the whole response left, and for its end, been judged too?"""
        queues = [(choice, queue) for choice, queue in self._queues.items() if choice is not None]
        if isinstance(shared.piece, End) and not all(self._is_settled(choice) for choice, _ in queues):
            return False
        return all(not queue or queue[0].serial > shared.serial for _, queue in queues)

    def _release_choice(self, choice: int, queue: deque[Held], released: list[Held]) -> None:
        while queue:
            held = queue[0]
            piece = held.piece
            if isinstance(piece, Delta):
                taken = self._take(queue, held, piece)
                if taken is None:
                    return
                released.append(taken)
            elif isinstance(piece, Finish) and not self._is_settled(choice):
                return  # text that left ahead of its verdict may yet turn this end into a cut
            else:
                queue.popleft()
                released.append(held)

    def _is_settled(self, choice: int) -> bool:
        return all(text.judged >= text.released for key, text in self._texts.items() if key.choice == choice)

    def _take(self, queue: deque[Held], first: Held, delta: Delta) -> Held | None:
        """As much of the first delta as is cleared."""
        text = self._text(delta.key)
        call = self._call_of.get(delta.key) if self._call_of else None
        if call is not None and not call.is_cleared:
            return None
        start = text.released
        allowed = text.cleared - start
        length = len(delta.text)
        if allowed >= length:
            queue.popleft()
            taken = first
        elif allowed <= 0 or delta.kind in WHOLE_KINDS:
            return None
        else:
            head, first.piece = delta.split(allowed)
            taken, length = Held(first.serial, head, first.arrived), allowed
        taken.start = start
        text.released = start + length
        self.held -= length
        if self._timing is not None:
            self._timing.times.released(taken.arrived)
        return taken
