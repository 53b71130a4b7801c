"""The search finds what a try of every count finds, with few tries."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.benchmark.search import PRECISION, Search

counts = st.integers(1, 5000)


def tries(search: Search, capacity: int) -> list[int]:
    """What it asks for when `capacity` streams are carried."""
    asked = []
    while (count := search.next) is not None:
        asked.append(count)
        search.tell(count, has_passed=count <= capacity)
    return asked


@given(st.integers(0, 6000), counts, counts)
def test_any_start_ends_within_the_precision(capacity: int, start: int, gap: int) -> None:
    search = Search(start, gap, 5000)
    asked = tries(search, capacity)
    assert search.found <= min(capacity, 5000)
    if search.found < 5000:
        assert capacity < search.found + max(1, search.found * PRECISION)
    assert len(asked) < 60
    assert len(set(asked)) == len(asked)
    assert all(1 <= count <= 5000 for count in asked)


def test_it_doubles_and_then_halves_the_interval() -> None:
    assert tries(Search(4, 4, 1000), 21) == [4, 8, 16, 32, 24, 20, 22, 21]


def test_near_the_answer_it_goes_up_in_small_steps_and_down_as_well() -> None:
    assert tries(Search(20, 1, 1000), 22) == [20, 21, 23, 22]
    assert tries(Search(20, 1, 1000), 17) == [20, 19, 17, 18]


def test_nothing_is_carried() -> None:
    search = Search(8, 8, 100)
    assert tries(search, 0) == [8, 1]
    assert search.found == 0


def test_everything_is_carried() -> None:
    search = Search(200, 200, 100)
    assert tries(search, 1000) == [100]
    assert search.found == 100
