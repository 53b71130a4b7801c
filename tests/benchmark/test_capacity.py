"""Capacity, found on loads whose outcome depends on the number of streams alone."""

import pytest

from proxy.benchmark.arrivals import Lags, Load
from proxy.benchmark.capacity import find_capacity
from proxy.benchmark.figures import Capacity
from proxy.benchmark.sizes import Pace
from proxy.benchmark.ways import NoRoom


class Machine:
    def __init__(self, carries: int, holds: int = 10_000) -> None:
        self.carries, self.holds = carries, holds
        self.played: list[tuple[int, float]] = []
        self.hiccups = 0  # loads still to be lost whatever they are

    def play(self, load: Load) -> Lags:
        streams = len(load.arrivals)
        self.played.append((streams, max((times[-1] for times in load.arrivals if times), default=0.0)))
        if streams > self.holds:
            raise NoRoom("full")
        lags = Lags(load.tokens)
        self.hiccups -= 1
        lags.add([0.015 if streams <= self.carries and self.hiccups < 0 else 0.030] * load.tokens)
        return lags


def capacity_of(machine: Machine, *, seconds: float = 5.0, start: int = 4, most: int = 1000) -> Capacity:
    tried: list[int] = []
    pace = Pace(seconds, 2)
    found = find_capacity(machine.play, 512, "weir", pace=pace, start=start, on_trial=tried.append, most=most)
    assert found.streams in {0, *tried}
    return found


@pytest.mark.parametrize("carries", [0, 1, 2, 21, 30])
@pytest.mark.parametrize("seconds", [1.0, 5.0])
def test_small_capacities_are_exact(carries: int, seconds: float) -> None:
    found = capacity_of(Machine(carries), seconds=seconds)
    assert found == Capacity(512, "weir", carries, 15.0 if carries else 0.0, "lag")


def test_a_found_count_has_carried_full_loads_of_both_seeds() -> None:
    machine = Machine(100)
    found = capacity_of(machine)
    assert 97 <= found.streams <= 100
    assert sum(streams == found.streams and last > 4 for streams, last in machine.played) >= 2


def test_one_hiccup_of_the_machine_loses_no_load() -> None:
    machine = Machine(21)
    machine.hiccups = 1
    assert capacity_of(machine, seconds=1.0).streams == 21
    machine = Machine(21)
    machine.hiccups = 2
    assert capacity_of(machine, seconds=1.0).streams < 4


def test_memory_ends_a_search_and_is_said() -> None:
    assert capacity_of(Machine(500, holds=20)) == Capacity(512, "weir", 20, 15.0, "memory")
    assert capacity_of(Machine(10, holds=20)).limit == "lag"


def test_the_search_itself_has_an_end() -> None:
    assert capacity_of(Machine(500), most=40) == Capacity(512, "weir", 40, 15.0, "search")
