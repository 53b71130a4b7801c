"""Which engine a new stream gets, by what its proxy knows: counts that engines report each second, and its own."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bench.fleet.model import Flags, Ints

REPORT_SECONDS = 1.0  # `wire.PULSE_SECONDS`
# A conversation goes elsewhere when its engine has so many times the streams of an average one.
CROWDED = 1.25


@dataclass(slots=True)
class Known:
    """Streams by engine."""

    engines: int
    proxies: int
    now: Ints = field(init=False)  # as it is
    seen: Ints = field(init=False)  # as it was reported
    own: Ints = field(init=False)  # of each proxy
    since: Ints = field(init=False)  # of each proxy: given since the report
    alive: Ints = field(init=False)  # the engines that are there

    def __post_init__(self) -> None:
        self.now, self.seen = np.zeros((2, self.engines), np.int64)
        self.own, self.since = np.zeros((2, self.proxies, self.engines), np.int64)
        self.alive = np.arange(self.engines)

    def report(self) -> None:
        self.seen = self.now.copy()
        self.since[:] = 0

    def loads(self, proxy: int) -> Ints:
        """As a proxy takes them to be."""
        taken: Ints = np.maximum(self.seen, self.own[proxy])
        return taken

    def give(self, proxy: int, engine: int) -> None:
        self.now[engine] += 1
        self.own[proxy, engine] += 1
        self.since[proxy, engine] += 1

    def take(self, proxies: Ints, engines: Ints) -> None:
        np.subtract.at(self.now, engines, 1)
        np.subtract.at(self.own, (proxies, engines), 1)

    def lose(self, is_alive: Flags) -> None:
        """Others may come, too."""
        self.alive = np.flatnonzero(is_alive)
        self.now[~is_alive], self.seen[~is_alive], self.own[:, ~is_alive], self.since[:, ~is_alive] = 0, 0, 0, 0


# Of what is known, the proxy and the conversation: the engine, and whether it still has the conversation's turn before.
Placement = Callable[[Known, int, int, np.random.Generator], tuple[int, bool]]


def at_home(known: Known, proxy: int, home: int, dice: np.random.Generator) -> tuple[int, bool]:
    """On the engine that it names: loads of one engine each, side by side."""
    return home, False


def fewest(known: Known, proxy: int, home: int, dice: np.random.Generator) -> tuple[int, bool]:
    """The engine with the fewest streams, by report or by the proxy's own count, whichever is more."""
    loads = known.loads(proxy)[known.alive]
    found = known.alive[loads == loads.min()]
    return int(found[dice.integers(len(found))]), False


def fewest_and_given(known: Known, proxy: int, home: int, dice: np.random.Generator) -> tuple[int, bool]:
    """The fewest by report and what the proxy has given since."""
    loads = (known.seen + known.since[proxy])[known.alive]
    found = known.alive[loads == loads.min()]
    return int(found[dice.integers(len(found))]), False


def fewer_of_two(known: Known, proxy: int, home: int, dice: np.random.Generator) -> tuple[int, bool]:
    """Of two engines by lot the one with fewer, as `proxy.guard.fleet` does; seldom they are one and the same here."""
    one, other = known.alive[dice.integers(len(known.alive), size=2)]
    loads = known.loads(proxy)
    return int(one if loads[one] <= loads[other] else other), False


def by_lot(known: Known, proxy: int, home: int, dice: np.random.Generator) -> tuple[int, bool]:
    return int(known.alive[dice.integers(len(known.alive))]), False


def sticky(known: Known, proxy: int, home: int, dice: np.random.Generator) -> tuple[int, bool]:
    """Where the conversation always goes."""
    return int(known.alive[home % len(known.alive)]), True


def sticky_with_limit(known: Known, proxy: int, home: int, dice: np.random.Generator) -> tuple[int, bool]:
    """There, unless it is crowded."""
    engine, has_it = sticky(known, proxy, home, dice)
    if known.loads(proxy)[engine] > CROWDED * known.seen[known.alive].mean() + 1:
        return fewer_of_two(known, proxy, home, dice)
    return engine, has_it
