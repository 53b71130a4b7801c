"""The simulated fleet: every token is judged once or refused, and a slow, obvious version of it agrees."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.fleet.fleet import Fleet, Loss, Outcome, Scaling
from bench.fleet.lags import RATIO, late_share, percentile
from bench.fleet.live import before
from bench.fleet.model import SHAPES, Host, Machine, Numbers, Shape, pages
from bench.fleet.placement import (
    Known,
    Placement,
    at_home,
    by_lot,
    fewer_of_two,
    fewest,
    fewest_and_given,
    sticky,
    sticky_with_limit,
)
from bench.fleet.simulation import Simulation
from bench.fleet.traffic import Mix, Offer, arriving, joined, standing, steady
from tests.bench.slow_fleet import obvious
from tests.docs.test_guards_page import PUBLISHED, TOKENS, architecture_of

SMALL, LARGE = SHAPES[0], SHAPES[2]
# Slow steps, of which a run has fewer.
SLOW = Machine(launch=10e-3)
MIX = Mix(prompt=300.0, prompts=(16, 1500), answer=40.0, answers=(8, 120))


def played(fleet: Fleet, streams: int, seconds: float, seed: int = 1, mix: Mix = MIX, **more: object) -> Outcome:
    dice = np.random.default_rng(seed)
    offer = joined(standing(mix, dice, streams), arriving(mix, dice, streams / mix.mean_seconds(), seconds))
    outcome = Simulation(fleet, offer, seconds, seed, to_the_end=True).run()
    assert outcome.finished + int(outcome.refused.sum()) == len(offer)
    assert outcome.open == 0
    assert outcome.lags.total == outcome.judged
    if not outcome.refused.sum():
        assert outcome.judged == int((offer.answer - np.maximum(offer.read, 0)).sum())
    return outcome


@pytest.mark.parametrize("choose", [fewest, fewest_and_given, fewer_of_two, by_lot, sticky, sticky_with_limit])
def test_every_token_is_judged_once(choose: Placement) -> None:
    mix = replace(MIX, turns=0.5)
    outcome = played(Fleet(SMALL, 3, SLOW, choose=choose, proxies=2), 60, 3.0, mix=mix)
    assert outcome.finished > 60
    assert not outcome.refused.sum()


def test_without_memory_streams_are_refused_or_wait_and_none_is_lost() -> None:
    memory = SMALL.weight_bytes + 20_000 * SMALL.kv_bytes + 4e9
    outcome = played(Fleet(SMALL, 1, replace(SLOW, memory=memory), admission=0.5), 120, 4.0)
    assert outcome.refused.sum() > 10
    assert outcome.finished > 10
    assert outcome.fullest.max() > 0.9


def test_answers_that_outgrow_the_memory_are_read_again() -> None:
    memory = SMALL.weight_bytes + 6400 * SMALL.kv_bytes + 4e9
    mix = Mix(prompt=64.0, prompts=(64, 64), answer=400.0, answers=(400, 400))
    offer = arriving(mix, np.random.default_rng(1), 40.0, 1.0)
    outcome = Simulation(Fleet(SMALL, 1, replace(SLOW, memory=memory)), offer, 1.0, 1, to_the_end=True).run()
    assert outcome.evicted.sum() > 0
    assert outcome.replayed_tokens > 64 * outcome.evicted.sum()
    assert outcome.judged == 400 * len(offer)


def test_the_same_seed_gives_the_same_run() -> None:
    one, other = (played(Fleet(SMALL, 2, SLOW), 40, 2.0) for _ in range(2))
    assert (one.lags.counts == other.lags.counts).all()
    assert one.busy == other.busy


def test_losing_a_tenth_raises_the_lag_and_it_recovers() -> None:
    fleet = Fleet(SMALL, 10, SLOW, loss=Loss(4.0, 1))
    calm = played(replace(fleet, loss=None), 500, 12.0)
    hurt = played(fleet, 500, 12.0)
    assert 20 < hurt.moved < 100
    assert hurt.replayed_tokens > 50 * hurt.moved
    assert hurt.alive[-1] == 9

    def worst(outcome: Outcome, since: int, until: int) -> float:
        return percentile(outcome.lags.of(None, since, until), 0.9995)

    assert worst(hurt, 4, 5) > 1.5 * worst(calm, 4, 5)
    assert worst(hurt, 8, 12) < 1.2 * worst(calm, 8, 12)


def test_a_loss_that_nobody_notices_costs_that_time() -> None:
    unnoticed = played(Fleet(SMALL, 10, SLOW, loss=Loss(2.0, 1, unnoticed=2.0)), 200, 6.0)
    at_once = played(Fleet(SMALL, 10, SLOW, loss=Loss(2.0, 1)), 200, 6.0)
    assert late_share(at_once.lags.of(), 0.5) == 0
    assert late_share(unnoticed.lags.of(), 0.5) > 0.002


def test_engines_are_added_for_more_streams_and_sooner_is_better() -> None:
    def rising(seconds: Numbers) -> Numbers:
        return np.minimum(3.0, 1.0 + seconds / 3)

    mix, start, seconds = MIX, 150, 12.0
    late = []
    for delay in (0.5, 6.0):
        dice = np.random.default_rng(3)
        coming = arriving(mix, dice, start / mix.mean_seconds(), seconds, rising)
        fleet = Fleet(LARGE, 3, SLOW, most=12, scaling=Scaling(50.0, delay, every=1.0), choose=fewer_of_two)
        outcome = Simulation(fleet, joined(standing(mix, dice, start), coming), seconds, 3).run()
        assert outcome.alive[0] == 3
        assert 6 <= outcome.alive[-1] <= 12
        late.append(late_share(outcome.lags.of(), 0.2))
    assert late[0] < late[1]


def test_counts_of_a_second_ago_send_all_new_streams_to_one_engine_and_two_by_lot_do_not() -> None:
    uneven = {}
    for choose in (fewest, fewer_of_two):
        outcome = played(Fleet(SMALL, 12, SLOW, choose=choose, proxies=8), 360, 5.0)
        uneven[choose] = max(outcome.uneven[2:5])
    assert uneven[fewest] > 2.0
    assert uneven[fewer_of_two] < 1.5


def test_a_conversation_that_stays_reads_only_what_is_new() -> None:
    mix = replace(MIX, turns=1.0)
    read = {
        choose: played(Fleet(SMALL, 4, SLOW, choose=choose), 80, 3.0, mix=mix).read_tokens
        for choose in (fewer_of_two, sticky)
    }
    assert read[sticky] < 0.3 * read[fewer_of_two]


@pytest.mark.parametrize(("shape", "streams"), [(SMALL, 3), (SMALL, 60), (LARGE, 25)])
def test_a_slow_obvious_version_agrees(shape: Shape, streams: int) -> None:
    fleet = Fleet(shape, 1, choose=at_home)
    dice = np.random.default_rng(streams)
    offer = joined(standing(MIX, dice, streams), arriving(MIX, dice, streams / MIX.mean_seconds(), 3.0))
    offer.home[:] = 0
    outcome = Simulation(fleet, offer, 3.0, 0, to_the_end=True).run()
    lags = sorted(obvious(fleet, offer))
    assert outcome.judged == len(lags)
    for share in (0.05, 0.5, 0.95, 0.99, 1.0):
        expected = lags[math.ceil(share * len(lags)) - 1]
        assert expected <= percentile(outcome.lags.of(), share) * (1 + 1e-6)
        assert percentile(outcome.lags.of(), share) <= expected * RATIO * (1 + 1e-6)


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_one_question_a_step_waits_as_long_as_in_a_queue_of_constant_service(load: float) -> None:
    """Poisson arrivals, one server, constant service: the mean wait is load / 2 (1 - load) services."""
    service, count = 0.002, 4_000
    machine = Machine(launch=service, bandwidth=1e30, flops=1e30, host=Host(0.0, 0.0, 0.0), hop=0.0)
    dice = np.random.default_rng(5)
    first = np.sort(dice.uniform(0.0, count * service / load, count))
    ones, zeros = np.ones(count, np.int64), np.zeros(count, np.int64)
    offer = Offer(np.maximum(0.0, first - 0.2), first, np.ones(count), ones, ones, zeros, zeros, zeros)
    fleet = Fleet(SMALL, 1, machine, choose=at_home, step=1)
    outcome = Simulation(fleet, offer, float(first[-1]), 0, to_the_end=True).run()
    counts = outcome.lags.of()
    middle = 100e-6 * RATIO ** (np.arange(len(counts)) + 0.5)
    mean = float((counts * middle).sum() / counts.sum())
    assert mean == pytest.approx(service * (1 + load / (2 * (1 - load))), rel=0.1)


# The parts.


def test_sums_of_those_before_in_a_group() -> None:
    groups, amounts = np.array([0, 0, 2, 2, 2, 5]), np.array([3, 1, 4, 1, 5, 9])
    assert before(groups, amounts).tolist() == [0, 3, 0, 4, 5, 0]
    assert before(groups[:0], amounts[:0]).tolist() == []


def test_shapes_are_those_of_the_guards_page() -> None:
    for shape, name in zip(SHAPES, PUBLISHED, strict=True):
        known = architecture_of(name)
        shown = (shape.hidden, shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.intermediate)
        assert shown == PUBLISHED[name]
        assert shape.kv_bytes == known.kv_bytes_per_token(2)
        assert name.endswith(shape.name)
    assert pages(np.array([0, 1, 64, 65])).tolist() == [0, 64, 64, 128]
    assert TOKENS % 64 == 0


def test_the_limits_of_a_gpu_are_the_published_ones() -> None:
    """Weights a step in 0.29, 2.4 and 4.6 ms at 3.0 TB/s."""
    whole = Machine(efficiency=1.0, launch=0.0)
    nothing = np.zeros(1)
    for shape, ms in zip(SHAPES, (0.29, 2.4, 4.6), strict=True):
        assert whole.gpu_seconds(shape, np.array([1]), nothing, nothing)[0] * 1e3 == pytest.approx(ms, rel=0.03)


def test_a_proxy_sees_its_own_streams_at_once_and_others_when_they_are_reported() -> None:
    dice = np.random.default_rng(0)
    known = Known(2, 2)
    known.give(0, 0)
    assert fewest_and_given(known, 0, 0, dice) == (1, False)
    assert {fewest_and_given(known, 1, 0, dice)[0] for _ in range(20)} == {0, 1}
    known.report()
    assert fewest_and_given(known, 1, 0, dice) == (1, False)
    known.take(np.array([0]), np.array([0]))
    assert known.now.tolist() == [0, 0]
    known.lose(np.array([False, True]))
    assert {choose(known, 0, 4, dice)[0] for choose in CHOICES} == {1}


CHOICES: list[Placement] = [fewest, fewest_and_given, fewer_of_two, by_lot, sticky, sticky_with_limit]


def test_the_protocols_load_is_the_benchmarks() -> None:
    offer = steady(np.random.default_rng(0), np.repeat([0, 1], [5, 7]), 512, 10.0)
    assert len(offer) == 12
    last = offer.arrival(np.arange(12), offer.answer - 1)
    assert (last < 10.0).all()
    assert (last + 1 / offer.rate >= 10.0 - 1e-9).all()
    assert set(offer.prompt) == {512}
