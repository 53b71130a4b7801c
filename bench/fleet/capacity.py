"""How many streams an engine carries: a sweep over loads of one engine each, all of them played at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.fleet.fleet import Fleet
from bench.fleet.lags import Lags, percentile
from bench.fleet.model import LIMITS, Ints, Machine, Shape
from bench.fleet.placement import at_home
from bench.fleet.simulation import Simulation
from bench.fleet.traffic import MIX, Mix, Offer, arriving, joined, standing, steady

# P95 of the lag. The first is the protocol's of `weir bench guard`; the second is what nobody sees in a chat.
AIMS = (0.020, 0.100)
SHARE = 0.95
POINTS = 24
WARM_SECONDS = 3
# Of prompts, which are read while the upstream thinks.
PROMPT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Point:
    """What came of so many streams."""

    streams: int
    lags: tuple[float, float, float]  # P50, P95, P99
    prompts: float  # P99
    refused: int
    evicted: int
    tokens: float  # a second, of answers
    busy: float  # share of the time
    hosted: float
    fullest: float  # share of the memory


@dataclass(frozen=True, slots=True)
class Sweep:
    shape: Shape
    machine: Machine
    context: int | None  # tokens; None: the mix
    piece: int
    points: Sequence[Point]

    def carried(self, aim: float) -> Point | None:
        """The most streams that keep the aim, as all fewer do. Nobody is refused, and no prompt waits for long."""
        found = None
        for point in self.points:
            if point.lags[1] > aim or point.refused or point.prompts > PROMPT_SECONDS:
                break
            found = point
        return found


def counts_up_to(most: int, points: int) -> list[int]:
    return sorted({round(count) for count in np.geomspace(max(1, most / 24), most, points)})


def sweep(
    shape: Shape,
    machine: Machine,
    context: int | None,
    *,
    mix: Mix = MIX,
    piece: int = LIMITS.piece,
    seconds: float = 12.0,
    points: int = POINTS,
    seed: int = 0,
) -> Sweep:
    """`context`: the protocol's load with so many tokens before it; None: streams of the mix that come and go."""
    dice = np.random.default_rng(seed)
    typical = context or mix.prompt
    counts = counts_up_to(min(1500, int(1.1 * machine.kv_tokens(shape) / typical)), points)
    if context is None:
        offer = joined(*(offered(mix, dice, count, home, seconds) for home, count in enumerate(counts)))
    else:
        offer = steady(dice, np.repeat(np.arange(len(counts)), counts), context, seconds)
    fleet = Fleet(shape, len(counts), machine, choose=at_home, piece=piece, groups=len(counts))
    outcome = Simulation(fleet, offer, seconds, seed).run()
    found = []
    for group, count in enumerate(counts):
        lags = outcome.lags.of(group, WARM_SECONDS)
        p50, p95, p99 = (percentile(lags, share) for share in (0.5, SHARE, 0.99))
        rate = lags.sum() / (seconds - WARM_SECONDS)
        busy, hosted = outcome.busy[group] / seconds, outcome.hosted[group] / seconds
        prompts = percentile(prompts_of(outcome.prompts, group), 0.99)
        refused, evicted = int(outcome.refused[group]), int(outcome.evicted[group])
        fullest = float(outcome.fullest[group])
        found.append(Point(count, (p50, p95, p99), prompts, refused, evicted, rate, busy, hosted, fullest))
    return Sweep(shape, machine, context, piece, found)


def prompts_of(prompts: Lags, group: int | None = None) -> Ints:
    return prompts.of(group, WARM_SECONDS)


def offered(mix: Mix, dice: np.random.Generator, streams: int, home: int, seconds: float) -> Offer:
    """So many streams at a time, on average, for one engine."""
    offer = joined(standing(mix, dice, streams), arriving(mix, dice, streams / mix.mean_seconds(), seconds))
    offer.home[:] = home
    return offer


def dollars(point: Point, price: float) -> float:
    """Of a million tokens of answers, at a price of an hour of a GPU."""
    return price / 3600 / point.tokens * 1e6
