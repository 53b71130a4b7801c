"""Which bytes begin an entry of the vocabulary and are not all of it: asked at every place of a growing pre-token.

A hash table of numbers: there are 227,000 beginnings, and as a set of bytes objects they take 35 MB.
"""

from array import array
from collections.abc import Sequence


class Beginnings:
    """The proper, not empty prefixes of `ordered`, which is sorted. It is kept, not copied."""

    def __init__(self, ordered: Sequence[bytes]) -> None:
        self._ordered = ordered
        numbers, ends = _firsts(ordered)
        # At least half of the slots stay empty, so that a search ends after one or two.
        self._mask = (1 << (2 * len(ends)).bit_length()) - 1
        # Open addressing; a slot has the number of an entry that begins so, from 1; 0 where it is empty.
        self._slots = array("I", bytes(array("I").itemsize * (self._mask + 1)))
        for number, end in zip(numbers, ends, strict=True):
            slot = hash(ordered[number][:end]) & self._mask
            while self._slots[slot]:
                slot = (slot + 1) & self._mask
            self._slots[slot] = number + 1
        self._count = len(ends)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, start: bytes) -> bool:
        slots, mask = self._slots, self._mask
        slot = hash(start) & mask
        while number := slots[slot]:
            entry = self._ordered[number - 1]
            if len(entry) > len(start) and entry.startswith(start):
                return bool(start)
            slot = (slot + 1) & mask
        return False


def _firsts(ordered: Sequence[bytes]) -> "tuple[array[int], array[int]]":
    """The number of an entry and the length of each beginning, at the first entry that has it."""
    numbers, ends = array("I"), array("I")
    before = b""
    for number, entry in enumerate(ordered):
        common, most = 0, min(len(before) - 1, len(entry) - 1)  # what is all of the one before begins nothing yet
        while common < most and before[common] == entry[common]:
            common += 1
        for end in range(common + 1, len(entry)):
            numbers.append(number)
            ends.append(end)
        before = entry
    return numbers, ends
