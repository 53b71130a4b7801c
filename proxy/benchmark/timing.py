"""Times single calls of ways: one more token, and whole steps."""

import statistics
import time
from collections.abc import Callable, Sequence

from proxy.benchmark.arrivals import percentile
from proxy.benchmark.figures import StepTime, TokenTime
from proxy.benchmark.sizes import IN_A_ROW, ROUNDS
from proxy.benchmark.ways import EngineWay, Way

# What took this long has been measured often enough.
ENOUGH_SECONDS = 3.0
FEWEST_ROUNDS = 3
# A call this slow does not care whether its memory was cold.
SLOW_SECONDS = 0.5


def time_tokens(ways: Sequence[Way], history: int, *, rounds: int = ROUNDS) -> TokenTime:
    """One more token of one stream, the ways in turns, so that all see the same machine."""
    for way in ways:
        way.open(1)
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            if sum(times[way.name]) < ENOUGH_SECONDS:
                times[way.name] += _calls(way)
    return TokenTime(history, {name: statistics.median(found) * 1e3 for name, found in times.items()})


def time_steps(way: EngineWay, *, streams: int, chunk: int, history: int, rounds: int) -> StepTime:
    """Feeds all streams at once, again and again from the same history on. Raises NoRoom."""
    way.open(streams)
    seconds, done, steps = 0.0, 0, list[float]()
    while done < rounds and (done < FEWEST_ROUNDS or seconds < ENOUGH_SECONDS):
        done += 1
        way.rewind()
        way.step_seconds.clear()
        seconds += _seconds(lambda: _feed_all(way, dict.fromkeys(range(streams), chunk)))
        steps += way.step_seconds
    ordered = sorted(steps)
    p50, p95, p99 = (percentile(ordered, fraction) * 1e3 for fraction in (0.5, 0.95, 0.99))
    return StepTime(streams, chunk, history, p50, p95, p99, done * streams * chunk / seconds)


def _calls(way: Way) -> list[float]:
    first = _seconds(lambda: way.work({0: 1}))
    if first > SLOW_SECONDS:
        return [first]
    return [_seconds(lambda: way.work({0: 1})) for _ in range(IN_A_ROW - 1)]


def _feed_all(way: EngineWay, waiting: dict[int, int]) -> None:
    while waiting:
        for stream in way.work(waiting):
            del waiting[stream]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
