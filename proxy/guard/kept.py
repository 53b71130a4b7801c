"""Prompts of closed streams, in memory for their owner's next request: a chat sends its whole past again.

They are the first that anyone's memory is taken from. Nobody but `prefixes`, within the owner, can find them.
"""

from collections import OrderedDict
from collections.abc import Iterator

from proxy.guard.limits import Limits
from proxy.guard.sequence import Sequence


class Kept:
    def __init__(self, limits: Limits) -> None:
        self.tokens = 0
        self._last_number = 0
        self._limits = limits
        self._sequences: OrderedDict[int, Sequence] = OrderedDict()  # the longest unused first

    def __len__(self) -> int:
        return len(self._sequences)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence.id in self._sequences

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences.values())

    @property
    def oldest(self) -> Sequence | None:
        return next(iter(self._sequences.values()), None)

    def is_worth(self, sequence: Sequence) -> bool:
        """Has the sequence something to keep, and may that much be kept?"""
        return sequence.slot is not None and 0 < sequence.computed <= self._limits.kept_tokens

    def add(self, sequence: Sequence, now: float) -> None:
        """It gets a number of ours: the one it had may be given again."""
        self._last_number -= 1
        sequence.id = self._last_number
        self._sequences[sequence.id] = sequence
        self.tokens += sequence.computed
        self.touch(sequence, now)

    def touch(self, sequence: Sequence, now: float) -> None:
        """It was of use again."""
        sequence.used_at = now
        self._sequences.move_to_end(sequence.id)

    def remove(self, sequence: Sequence) -> bool:
        """Before its computed tokens change; False when it was not here."""
        if self._sequences.pop(sequence.id, None) is None:
            return False
        self.tokens -= sequence.computed
        return True

    def surplus(self, now: float) -> Sequence | None:
        """The next one to let go: too old, or one too many."""
        oldest = self.oldest
        if oldest is None:
            return None
        is_old = oldest.used_at < now - self._limits.kept_seconds
        return oldest if is_old or self.tokens > self._limits.kept_tokens else None
