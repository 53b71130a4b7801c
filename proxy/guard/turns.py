"""A queue that serves owners in turn: one key with 500 streams does not delay another's one."""

from collections import OrderedDict
from collections.abc import Iterator

from proxy.guard.sequence import Sequence


class Turns:
    """Sequences in order of arrival within their owner; owners take turns."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, OrderedDict[int, Sequence]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence.id in self._owners.get(sequence.owner, ())

    def __iter__(self) -> Iterator[Sequence]:
        """One sequence of each owner, then the second of each, and so on. Not while the queue changes."""
        queues = [iter(queue.values()) for queue in self._owners.values()]
        while queues:
            alive = []
            for queue in queues:
                sequence = next(queue, None)
                if sequence is not None:
                    yield sequence
                    alive.append(queue)
            queues = alive

    def push(self, sequence: Sequence) -> None:
        self._owners.setdefault(sequence.owner, OrderedDict())[sequence.id] = sequence
        self._size += 1

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out; nothing happens when it is not there."""
        queue = self._owners.get(sequence.owner)
        if queue is None or queue.pop(sequence.id, None) is None:
            return
        self._size -= 1
        if not queue:
            del self._owners[sequence.owner]

    def send_back(self, sequence: Sequence) -> None:
        """It was served: behind its owner's others, and its owner behind the other owners."""
        self._owners[sequence.owner].move_to_end(sequence.id)
        self._owners.move_to_end(sequence.owner)
