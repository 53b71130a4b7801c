"""Finds the open stream that begins like a new one, so that a shared system prompt is computed once.

Only within one owner: a stranger must not learn from the time a prompt takes what others have sent.
"""

from collections import OrderedDict
from collections.abc import Sequence as Ordered
from itertools import islice

from proxy.guard.sequence import Sequence

# Shorter beginnings are not worth the copy; this many tokens are also the key of the index.
SHORTEST_TOKENS = 32
# The newest streams with the same beginning that are compared to the end.
COMPARED_STREAMS = 8
COMPARED_TOKENS = 256  # in one slice

Key = tuple[str, tuple[int, ...]]


class Prefixes:
    def __init__(self) -> None:
        self._by_head: dict[Key, OrderedDict[int, Sequence]] = {}
        self._keys: dict[int, Key] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence.id in self._keys

    def add(self, sequence: Sequence) -> None:
        """Offer a sequence's beginning to later ones of its owner; nothing without an owner."""
        if not sequence.owner or len(sequence.ids) < SHORTEST_TOKENS:
            return
        key = (sequence.owner, tuple(sequence.ids[:SHORTEST_TOKENS]))
        self._keys[sequence.id] = key
        self._by_head.setdefault(key, OrderedDict())[sequence.id] = sequence

    def remove(self, sequence: Sequence) -> None:
        """Nothing happens when it was never added."""
        key = self._keys.pop(sequence.id, None)
        if key is None:
            return
        del self._by_head[key][sequence.id]
        if not self._by_head[key]:
            del self._by_head[key]

    def find(self, owner: str, ids: Ordered[int], limit: int) -> tuple[Sequence, int] | None:
        """The sequence with the most computed tokens in common, and how many; at most `limit` of them count."""
        if limit < SHORTEST_TOKENS:
            return None
        known: OrderedDict[int, Sequence] = self._by_head.get((owner, tuple(ids[:SHORTEST_TOKENS])), OrderedDict())
        best: tuple[Sequence, int] | None = None
        for number in islice(reversed(known), COMPARED_STREAMS):
            other = known[number]
            length = _common(ids, other.ids, min(limit, other.computed))
            if length >= SHORTEST_TOKENS and (best is None or length > best[1]):
                best = (other, length)
        return best


def _common(ids: Ordered[int], others: Ordered[int], limit: int) -> int:
    """How many of the first `limit` tokens are the same."""
    start = 0
    while start < limit:
        end = min(start + COMPARED_TOKENS, limit)
        if ids[start:end] != others[start:end]:
            pairs = zip(ids[start:end], others[start:end], strict=False)
            return start + next((at for at, (one, two) in enumerate(pairs) if one != two), 0)
        start = end
    return limit
