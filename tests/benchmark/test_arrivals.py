"""The load is the protocol's, and it is lost exactly when its P95 is."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from proxy.benchmark.arrivals import LIMIT_SECONDS, Lags, make_load, percentile

lags_of_tokens = st.lists(st.floats(0.0, 0.1), min_size=1, max_size=100)


def test_tokens_arrive_at_30_to_60_a_second_from_within_the_first_second_on() -> None:
    load = make_load(200, 10.0, seed=1)
    for times in load.arrivals:
        assert 0 <= times[0] <= 1
        assert times[-1] < 10
        rate = (len(times) - 1) / (times[-1] - times[0])
        assert 30 <= rate <= 60 + 1e-9
        assert all(0 < 1 / (later - earlier) < 61 for earlier, later in itertools.pairwise(times))
    assert load.tokens == sum(len(times) for times in load.arrivals)
    assert 43 < load.tokens / 200 / 9.5 < 47


def test_more_streams_are_the_same_streams_and_more() -> None:
    assert make_load(20, 3.0, 0).arrivals[:7] == make_load(7, 3.0, 0).arrivals
    assert make_load(7, 3.0, 0) != make_load(7, 3.0, 1)


def test_a_load_shorter_than_its_starts_has_silent_streams() -> None:
    assert () in make_load(50, 0.3, 0).arrivals


@given(lags_of_tokens)
def test_a_load_is_lost_when_its_p95_is_above_the_limit(values: list[float]) -> None:
    lags = Lags(len(values))
    lags.add(values)
    assert lags.is_lost == (lags.percentile(0.95) > LIMIT_SECONDS)


def test_a_load_may_be_lost_before_its_last_token() -> None:
    lags = Lags(100)
    lags.add([1.0] * 5)
    assert not lags.is_lost
    lags.add([1.0])
    assert lags.is_lost


@given(lags_of_tokens, st.floats(0.01, 1.0))
def test_a_percentile_is_a_value_that_enough_do_not_exceed(values: list[float], fraction: float) -> None:
    found = percentile(sorted(values), fraction)
    below = [value for value in values if value < found]
    assert found in values
    assert sum(value <= found for value in values) >= fraction * len(values) - 1e-6
    assert len(below) <= math.ceil(fraction * len(values))


def test_nothing_has_percentile_zero() -> None:
    assert percentile([], 0.5) == 0.0
