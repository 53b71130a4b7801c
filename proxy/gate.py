"""Hold pieces in order, release what was cleared.

Within a choice every piece waits for the pieces before it. Choices do not wait for each other. A
piece of the whole response (usage, the end) waits for all that arrived before it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from adapters.base import WHOLE_KINDS, Delta, End, Finish, Key, Piece


class HeldTooMuch(Exception):
    """More text waits for verdicts than the gate may hold."""


@dataclass(slots=True)
class _Held:
    serial: int
    piece: Piece


@dataclass(frozen=True, slots=True)
class Released:
    """A piece on its way to the client; `start` is the offset of a delta's text in its channel."""

    piece: Piece
    start: int = 0


class Gate:
    def __init__(self, max_held: int) -> None:
        self._max_held = max_held
        self._queues: dict[int | None, deque[_Held]] = {None: deque()}
        self._serial = 0
        self._cleared: dict[Key, int] = {}
        self._judged: dict[Key, int] = {}
        self._released: dict[Key, int] = {}
        self.held = 0  # characters received and not yet released

    def hold(self, piece: Piece) -> None:
        """Raises HeldTooMuch."""
        choice = None if isinstance(piece, End) else piece.key.choice if isinstance(piece, Delta) else piece.choice
        self._serial += 1
        self._queues.setdefault(choice, deque()).append(_Held(self._serial, piece))
        if isinstance(piece, Delta):
            self.held += len(piece.text)
            if self.held > self._max_held:
                raise HeldTooMuch(f"more than {self._max_held} characters wait for verdicts")

    def clear(self, key: Key, judged: int, ahead: int = 0) -> None:
        """Allow the first `judged + ahead` characters of a channel, of which `judged` have their verdict.

        What was allowed stays allowed.
        """
        self._judged[key] = max(judged, self._judged.get(key, 0))
        self._cleared[key] = max(judged + ahead, self._cleared.get(key, 0))

    def released(self, key: Key) -> int:
        """Characters of a channel that have left."""
        return self._released.get(key, 0)

    @property
    def is_empty(self) -> bool:
        """Has every piece of every choice left?"""
        return not any(queue for choice, queue in self._queues.items() if choice is not None)

    def drop(self, choice: int) -> None:
        """Throw away what a choice still holds."""
        for held in self._queues.pop(choice, ()):
            if isinstance(held.piece, Delta):
                self.held -= len(held.piece.text)

    def release(self) -> Iterator[Released]:
        for choice, queue in self._queues.items():
            if choice is not None:
                yield from self._release_choice(choice, queue)
        shared = self._queues[None]
        while shared and self._is_next(shared[0]):
            yield Released(shared.popleft().piece)

    def _is_next(self, shared: _Held) -> bool:
        """Has all before a piece of the whole response left, and for its end, been judged too?"""
        queues = [(choice, queue) for choice, queue in self._queues.items() if choice is not None]
        if isinstance(shared.piece, End) and not all(self._is_settled(choice) for choice, _ in queues):
            return False
        return all(not queue or queue[0].serial > shared.serial for _, queue in queues)

    def _release_choice(self, choice: int, queue: deque[_Held]) -> Iterator[Released]:
        while queue:
            piece = queue[0].piece
            if isinstance(piece, Delta):
                taken = self._take(queue, piece)
                if taken is None:
                    return
                yield taken
            elif isinstance(piece, Finish) and not self._is_settled(choice):
                return  # text that left ahead of its verdict may yet turn this end into a cut
            else:
                queue.popleft()
                yield Released(piece)

    def _is_settled(self, choice: int) -> bool:
        return all(self._judged.get(key, 0) >= sent for key, sent in self._released.items() if key.choice == choice)

    def _take(self, queue: deque[_Held], delta: Delta) -> Released | None:
        """As much of the first delta as is cleared."""
        start = self._released.get(delta.key, 0)
        allowed = self._cleared.get(delta.key, 0) - start
        if allowed >= len(delta.text):
            queue.popleft()
        elif allowed <= 0 or delta.kind in WHOLE_KINDS:
            return None
        else:
            delta, queue[0].piece = delta.split(allowed)
        self._released[delta.key] = start + len(delta.text)
        self.held -= len(delta.text)
        return Released(delta, start)
