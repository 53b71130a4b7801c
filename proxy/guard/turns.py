"""A queue that serves owners in turn: one key with 500 streams does not delay another's one."""

from collections import OrderedDict
from collections.abc import Iterator

from proxy.guard.sequence import Sequence


class Turns:
    """Sequences in order of arrival within their owner; owners take turns. Only a whole walk costs its length."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, OrderedDict[int, Sequence]] = OrderedDict()
        self._arrivals: OrderedDict[int, Sequence] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrivals)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence.id in self._arrivals

    def __iter__(self) -> Iterator[Sequence]:
        """One sequence of each owner, then the second of each, and so on. Not while the queue changes."""
        waiting = []
        for owned in self._owners.values():
            queue = iter(owned.values())
            yield next(queue)  # an owner without a sequence is forgotten
            if len(owned) > 1:
                waiting.append(queue)
        while waiting:
            alive = []
            for queue in waiting:
                sequence = next(queue, None)
                if sequence is not None:
                    yield sequence
                    alive.append(queue)
            waiting = alive

    def __reversed__(self) -> Iterator[Sequence]:
        """The last to arrive first, whoever owns it."""
        return reversed(self._arrivals.values())

    @property
    def oldest(self) -> Sequence | None:
        """The first to arrive of those here, whoever owns it."""
        return next(iter(self._arrivals.values()), None)

    @property
    def first(self) -> Sequence | None:
        """Whose turn it is."""
        owned = next(iter(self._owners.values()), None)
        return None if owned is None else next(iter(owned.values()))

    def has(self, owner: str) -> bool:
        return owner in self._owners

    def push(self, sequence: Sequence) -> None:
        self._owners.setdefault(sequence.owner, OrderedDict())[sequence.id] = sequence
        self._arrivals[sequence.id] = sequence

    def remove(self, sequence: Sequence) -> bool:
        """Take a sequence out; False when it was not there."""
        if self._arrivals.pop(sequence.id, None) is None:
            return False
        owned = self._owners[sequence.owner]
        del owned[sequence.id]
        if not owned:
            del self._owners[sequence.owner]
        return True

    def send_back(self, sequence: Sequence) -> None:
        """It was served: behind its owner's others, and its owner behind the other owners."""
        self._owners[sequence.owner].move_to_end(sequence.id)
        self._owners.move_to_end(sequence.owner)

    def pass_on(self, owner: str) -> None:
        """The owner had its turn: the others are before it, if it still waits."""
        if owner in self._owners:
            self._owners.move_to_end(owner)
