"""Minutes of random traffic through the scheduler, without torch. WEIR_LONG=1: hours of it, with the table of waits."""

import os
from dataclasses import replace
from statistics import median

import pytest

from proxy.guard.limits import Limits
from tests.guard.simulation import Simulation, Traffic

IS_LONG = "WEIR_LONG" in os.environ
SEEDS = range(12) if IS_LONG else range(2)
SCALE = 6 if IS_LONG else 1

AMPLE = Traffic(8, budget=2_000_000, owners={"a": 2, "b": 2, "c": 4}, giants=0.3)
HOG = Traffic(6, budget=2_000_000, hog=500, giants=0.5)
TIGHT_HOG = Traffic(8, budget=60_000, hog=500)
CRUSH = Traffic(8, budget=40_000, hog=200, giants=0.3, answer=300, faults=0.0005)
CRASHES = Traffic(8, budget=60_000, hog=50, restarts=1.0, faults=0.001)
MANY = Traffic(
    6, budget=100_000, owners={f"o{n}": 0.5 for n in range(40)}, hog=100, giants=0.1, restarts=0.3, kept=9000
)

# The most steps that a feed of an owner with few streams waits, and of one with hundreds.
# With room for everyone: its own step, and one that another must have for itself.
BOUNDS = {
    "ample": (1, 1),
    "hog": (1, 4),
    "tight hog": (40, 120),
    "crush": (80, 200),
    "crashes": (40, 120),
    "many": (80, 200),
}
CASES = {"ample": AMPLE, "hog": HOG, "tight hog": TIGHT_HOG, "crush": CRUSH, "crashes": CRASHES, "many": MANY}


def simulated(traffic: Traffic, seed: int) -> Simulation:
    simulation = Simulation(replace(traffic, seconds=traffic.seconds * SCALE), seed)
    simulation.simulate()
    return simulation


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_everything_that_is_let_in_finishes_and_nobody_starves(name: str, seed: int) -> None:
    traffic = CASES[name]
    simulation = simulated(traffic, seed)
    if IS_LONG:
        tell(name, seed, simulation)
    few, hundreds = BOUNDS[name]
    for owner, waits in simulation.waits.items():
        # A stream of 30,000 tokens that lost its memory is computed anew, piece by piece.
        giants = 30_000 // Limits().piece * 4 if owner == "giant" else 0
        assert max(waits) <= (hundreds if owner == "hog" else few) + giants, owner
    assert simulation.finished > 0
    if name in ("ample", "hog"):
        assert (simulation.refused, simulation.scheduler.counters.evictions) == (0, 0)
        singles = [simulation.open_seconds[owner] for owner in traffic.owners]
        assert all(max(seconds) < 0.5 for seconds in singles if seconds)


def test_memory_for_20_streams_and_200_offered() -> None:
    traffic = Traffic(1, budget=20 * 8192, window=8192, owners={}, leaves=0.0)
    simulation = Simulation(traffic, 0, Limits(idle_seconds=60.0))
    simulation.offer(200, tokens=8000, answer=150)
    simulation.simulate()
    assert simulation.finished + simulation.refused == 200
    assert simulation.finished >= 20
    assert simulation.refused > 0
    assert simulation.scheduler.counters.evictions == 0


def tell(name: str, seed: int, simulation: Simulation) -> None:
    evicted = simulation.scheduler.counters.evictions
    print(
        f"\n{name}, seed {seed}: {simulation.steps} steps, {simulation.now - 100:.0f} s, {simulation.restarts} restarts"
    )
    print(
        f"  {simulation.finished} finished, {simulation.refused} refused, {simulation.faulty} failed, {evicted} evicted"
    )
    for owner, waits in sorted(simulation.waits.items()):
        ranked = sorted(waits)
        p99, longest = ranked[len(ranked) * 99 // 100], max(simulation.open_seconds[owner])
        print(
            f"  {owner:6} {len(waits):7} feeds wait {median(waits):3.0f} steps, p99 {p99:4}, at most {ranked[-1]:4};",
            end=" ",
        )
        print(f"opens at most {longest:.2f} s")
