"""A fleet's bad days: bursts, engines that go, new ones that are late; and what placement makes of ordinary ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.fleet.fleet import Fleet, Loss, Outcome, Scaling
from bench.fleet.lags import percentile
from bench.fleet.model import Machine, Numbers, Shape
from bench.fleet.placement import Placement, fewer_of_two
from bench.fleet.simulation import Simulation
from bench.fleet.traffic import MIX, Mix, arriving, joined, standing

CALM = (5, 10)  # seconds in which nothing has happened yet
AT = 10.0  # when it does
LENGTH = 40.0
# Lags are as before again when P95 of three seconds in a row is no more than this times what it was.
AGAIN, IN_A_ROW = 1.25, 3


@dataclass(frozen=True, slots=True)
class Base:
    """An ordinary day."""

    shape: Shape
    machine: Machine
    engines: int
    streams: int  # of each engine, on average
    piece: int
    mix: Mix = MIX
    seed: int = 0

    def fleet(self) -> Fleet:
        return Fleet(self.shape, self.engines, self.machine, choose=fewer_of_two, piece=self.piece, proxies=16)


@dataclass(frozen=True, slots=True)
class Day:
    """What came of it."""

    name: str
    calm: tuple[float, float, float]  # P50, P95, P99 before it happened
    after: tuple[float, float, float]  # in the ten seconds from then on
    worst: float  # P95 of the worst second
    again: float | None  # seconds until lags are as before; None: not within the run
    prompts: float  # P99 of prompts, from then on
    refused: float  # share of those that came
    moved: int
    replayed: int  # tokens
    read: int
    uneven: float  # the most streams of an engine, of an average one's
    engine_seconds: float
    p95: Sequence[float]  # by second
    alive: Sequence[int]
    streams: Sequence[int]


def day(name: str, fleet: Fleet, base: Base, *, more: float = 1.0, until: float = AT, length: float = LENGTH) -> Day:
    """From `AT` to `until` there come `more` times as many."""

    def shape(at: Numbers) -> Numbers:
        return np.where((at >= AT) & (at < until), more, 1.0)

    return _told(name, _play(fleet, base, length, shape), length)


def placement(base: Base, choose: Placement, turns: float, length: float = 25.0) -> Day:
    base = replace(base, mix=replace(base.mix, turns=turns))
    return day(choose.__name__, replace(base.fleet(), choose=choose), base, length=length)


def burst(base: Base, more: float, seconds: float) -> Day:
    return day(f"{more:g} x", base.fleet(), base, more=more, until=AT + seconds)


def loss(base: Base, unnoticed: float, length: float = LENGTH) -> Day:
    lost = Loss(AT, base.engines // 10, unnoticed)
    return day(f"{unnoticed:g} s", replace(base.fleet(), loss=lost), base, length=length)


def scaling(base: Base, delay: float, *, ramp: float = 60.0, length: float = 180.0) -> Day:
    """Twice the streams after `ramp` seconds; engines are added for as many each as there are at the beginning."""

    def shape(at: Numbers) -> Numbers:
        return 1.0 + np.clip((at - AT) / ramp, 0.0, 1.0)

    fleet = replace(base.fleet(), most=3 * base.engines, scaling=Scaling(1.1 * base.streams, delay))
    return _told(f"{delay:g} s", _play(fleet, base, length, shape), length)


def size(base: Base, streams: int, length: float) -> Day:
    """Nothing happens to many."""
    base = replace(base, engines=max(1, round(streams / base.streams)))
    fleet = replace(base.fleet(), proxies=min(256, max(2, streams // 500)))
    return _told(f"{streams:,}", _play(fleet, base, length, np.ones_like), length, calm=(2, int(length)))


def _play(fleet: Fleet, base: Base, length: float, shape: object) -> Outcome:
    dice = np.random.default_rng(base.seed)
    streams = base.engines * base.streams
    assert callable(shape)
    coming = arriving(base.mix, dice, streams / base.mix.mean_seconds(), length, shape)
    return Simulation(fleet, joined(standing(base.mix, dice, streams), coming), length, base.seed).run()


def _told(name: str, out: Outcome, length: float, calm: tuple[int, int] = CALM) -> Day:
    after = (int(AT), int(AT) + 10) if length > AT else calm
    p95 = [percentile(out.lags.of(None, second, second + 1), 0.95) for second in range(int(length))]
    before = _percentiles(out, *calm)
    return Day(
        name=name,
        calm=before,
        after=_percentiles(out, *after),
        worst=max(p95[after[0] :]),
        again=_again(p95, before[1]),
        prompts=percentile(out.prompts.of(None, after[0]), 0.99),
        refused=float(out.refused.sum()) / out.offered,
        moved=out.moved,
        replayed=out.replayed_tokens,
        read=out.read_tokens,
        uneven=max(out.uneven[calm[0] :]),
        engine_seconds=out.engine_seconds,
        p95=p95,
        alive=out.alive,
        streams=out.streams,
    )


def _percentiles(out: Outcome, since: int, until: int) -> tuple[float, float, float]:
    counts = out.lags.of(None, since, until)
    p50, p95, p99 = (percentile(counts, share) for share in (0.5, 0.95, 0.99))
    return p50, p95, p99


def _again(p95: Sequence[float], before: float) -> float | None:
    first = int(AT)
    late = [second for second in range(first, len(p95)) if p95[second] > AGAIN * before]
    if not late:
        return 0.0
    return float(late[-1] + 1 - first) if late[-1] + IN_A_ROW < len(p95) else None
