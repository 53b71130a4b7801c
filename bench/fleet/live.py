"""The streams that are open now, as arrays, and sums over those of one engine."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from bench.fleet.model import Flags, Ints, Numbers
from bench.fleet.traffic import Offer

NOWHERE = -1


@dataclass(slots=True)
class Live:
    """One entry a stream in each of them."""

    number: Ints  # in the offer
    opened: Numbers
    first: Numbers
    rate: Numbers
    prompt: Ints
    answer: Ints
    home: Ints
    known: Ints
    proxy: Ints
    engine: Ints  # NOWHERE: nobody has it
    taken: Ints  # answer tokens that are judged
    todo: Ints  # tokens to read before the next of them
    held: Flags  # has memory on its engine
    replayed: Flags  # was let in before, so it is never refused
    asked: Numbers  # since when it waits for room, or for an engine
    free: Numbers  # when the proxy has its last verdict
    served: Numbers  # when its prompt was read last

    def __len__(self) -> int:
        return len(self.number)

    def kept(self, which: Flags) -> "Live":
        return Live(*(part[which] for part in self._parts()))

    def with_more(self, other: "Live") -> "Live":
        return Live(*map(np.concatenate, zip(self._parts(), other._parts(), strict=True)))

    def asks(self, which: Ints) -> Numbers:
        """When their proxies ask for the next tokens; those that have come by then are asked for at once."""
        asked: Numbers = np.maximum(self.first[which] + self.taken[which] / self.rate[which], self.free[which])
        return asked

    def _parts(self) -> Iterator[np.ndarray]:
        return (getattr(self, field.name) for field in fields(self))


def come(offer: Offer, which: slice, proxies: int, dice: np.random.Generator) -> Live:
    """Streams of the offer that nobody has yet."""
    count = len(offer.opened[which])
    opened, read = offer.opened[which], offer.read[which]
    return Live(
        number=np.arange(which.start, which.stop),
        opened=opened,
        first=offer.first[which],
        rate=offer.rate[which],
        prompt=offer.prompt[which],
        answer=offer.answer[which],
        home=offer.home[which],
        known=offer.known[which],
        proxy=dice.integers(0, proxies, count),
        engine=np.full(count, NOWHERE),
        taken=np.maximum(read, 0),
        todo=np.where(read < 0, offer.prompt[which], 0),
        held=np.zeros(count, np.bool_),
        replayed=read >= 0,
        asked=opened.copy(),
        free=opened.copy(),
        served=opened.copy(),
    )


def before(groups: Ints, amounts: Ints) -> Ints:
    """Of each, the sum of those before it in its group; the groups one after another."""
    running = np.cumsum(amounts) - amounts
    edges = np.flatnonzero(groups[1:] != groups[:-1]) + 1
    starts = np.zeros(len(edges) + 1, np.int64)
    starts[1:] = edges
    if not len(groups):
        return running
    return running - np.repeat(running[starts], np.diff(starts, append=len(groups)))
