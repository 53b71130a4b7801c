"""Loads played to ways whose time is made up: every lag is known."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.benchmark.arrivals import Load, make_load
from proxy.benchmark.queueing import Queues, play


class Clock:
    """Stands still until someone sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += max(seconds, 1e-6)  # no sleep is too short for a clock to move


class Fixed:
    """Takes `seconds` a call and judges all that waits of up to `streams` streams, up to `tokens` each."""

    name = "fixed"

    def __init__(self, clock: Clock, seconds: float, streams: int = 1, tokens: int = 1000) -> None:
        self._clock, self._seconds, self._streams, self._tokens = clock, seconds, streams, tokens
        self.calls: list[dict[int, int]] = []
        self.opened = 0

    def open(self, streams: int) -> None:
        self.opened = streams

    def work(self, waiting: Mapping[int, int]) -> dict[int, int]:
        self._clock.now += self._seconds
        chosen = list(waiting)[: self._streams]
        self.calls.append({stream: min(self._tokens, waiting[stream]) for stream in chosen})
        return self.calls[-1]

    def close(self) -> None: ...


def test_tokens_that_arrive_while_one_is_judged_wait_and_go_together() -> None:
    clock = Clock()
    way = Fixed(clock, 0.010)
    lags = play(way, Load(((0.0, 0.002, 0.004, 0.5),)), clock=clock, sleep=clock.sleep)
    assert way.calls == [{0: 1}, {0: 2}, {0: 1}]
    assert way.opened == 1
    assert [lags.percentile(fraction) for fraction in (0.25, 0.75, 1.0)] == pytest.approx([0.010, 0.016, 0.018])


def test_one_at_a_time_serves_the_stream_that_waits_longest() -> None:
    clock = Clock()
    way = Fixed(clock, 0.004, tokens=1)
    play(way, Load(((0.0, 0.001), (0.002,), (0.003,))), clock=clock, sleep=clock.sleep)
    assert [list(call) for call in way.calls] == [[0], [0], [1], [2]]


def test_a_load_that_is_too_much_ends_early() -> None:
    clock = Clock()
    way = Fixed(clock, 0.100, tokens=1)
    load = make_load(4, 10.0, 0)
    assert play(way, load, clock=clock, sleep=clock.sleep).is_lost
    assert len(way.calls) < 0.06 * load.tokens


@given(st.integers(1, 6), st.floats(0.0001, 0.012), st.integers(1, 6), st.integers(1, 4))
def test_every_token_is_judged_once_and_none_before_it_arrives(
    streams: int, seconds: float, at_once: int, tokens: int
) -> None:
    clock = Clock()
    load = make_load(streams, 1.5, seed=streams)
    way = Fixed(clock, seconds, at_once, tokens)
    lags = play(way, load, clock=clock, sleep=clock.sleep)
    if lags.is_lost:
        return
    judged = {stream: sum(call.get(stream, 0) for call in way.calls) for stream in range(streams)}
    assert judged == {stream: len(times) for stream, times in enumerate(load.arrivals)}
    assert lags.percentile(1e-9) >= seconds - 1e-9


def test_a_queue_keeps_the_order_of_waiting() -> None:
    queues = Queues(Load(((0.0, 0.4), (0.1,), (0.3,), ())))
    queues.arrive(0.35)
    assert queues.waiting == {0: 1, 1: 1, 2: 1}
    assert queues.answer({1: 1}, 0.35) == pytest.approx([0.25])
    assert list(queues.waiting) == [0, 2]
    queues.arrive(0.5)
    assert queues.answer({0: 1}, 0.5) == pytest.approx([0.5])
    assert queues.waiting == {2: 1, 0: 1}
    assert list(queues.waiting) == [2, 0]
    assert queues.next_arrival is None
