"""Times single calls of ways: one more token, and whole steps."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from proxy.benchmark.arrivals import percentile
from proxy.benchmark.figures import StepTime, TokenTime
from proxy.benchmark.sizes import IN_A_ROW, ROUNDS
from proxy.benchmark.ways import EngineWay, Way

# What took this long has been measured often enough.
ENOUGH_SECONDS = 3.0
FEWEST_ROUNDS = 3
# A call this slow does not care whether its memory was cold.
SLOW_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Taken:
    seconds: float
    core_seconds: float  # of all threads of this process


def time_tokens(ways: Sequence[Way], history: int, *, rounds: int = ROUNDS) -> TokenTime:
    """One more token of one stream, the ways in turns, so that all see the same machine."""
    for way in ways:
        way.open(1)
    times: dict[str, list[Taken]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            if sum(taken.seconds for taken in times[way.name]) < ENOUGH_SECONDS:
                times[way.name] += _calls(way)
    ms = {name: median(taken.seconds for taken in found) * 1e3 for name, found in times.items()}
    core_ms = {name: median(taken.core_seconds for taken in found) * 1e3 for name, found in times.items()}
    return TokenTime(history, ms, core_ms)


def time_steps(way: EngineWay, *, streams: int, chunk: int, history: int, rounds: int) -> StepTime:
    """Feeds all streams at once, again and again from the same history on. Raises NoRoom."""
    way.open(streams)
    seconds, core_seconds, done, steps = 0.0, 0.0, 0, list[float]()
    while done < rounds and (done < FEWEST_ROUNDS or seconds < ENOUGH_SECONDS):
        done += 1
        way.rewind()
        way.step_seconds.clear()
        taken = _time(lambda: _feed_all(way, dict.fromkeys(range(streams), chunk)))
        seconds, core_seconds = seconds + taken.seconds, core_seconds + taken.core_seconds
        steps += way.step_seconds
    ordered = sorted(steps)
    p50, p95, p99 = (percentile(ordered, fraction) * 1e3 for fraction in (0.5, 0.95, 0.99))
    tokens = done * streams * chunk
    return StepTime(streams, chunk, history, p50, p95, p99, tokens / seconds, tokens / core_seconds)


def _calls(way: Way) -> list[Taken]:
    first = _time(lambda: way.work({0: 1}))
    if first.seconds > SLOW_SECONDS:
        return [first]
    return [_time(lambda: way.work({0: 1})) for _ in range(IN_A_ROW - 1)]


def _feed_all(way: EngineWay, waiting: dict[int, int]) -> None:
    while waiting:
        for stream in way.work(waiting):
            del waiting[stream]


def _time(work: Callable[[], object]) -> Taken:
    started, started_core = time.perf_counter(), time.process_time()
    work()
    return Taken(time.perf_counter() - started, time.process_time() - started_core)
