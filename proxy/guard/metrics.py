"""Numbers about an engine, for people and for monitoring. No torch, no clock.

The engine's thread records; any thread may read a `Metrics`, and no step waits for it.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.guard.sequence import Chunk, Job, Sequence


def _geometric(first: float, last: float, ratio: float) -> tuple[float, ...]:
    bounds = [first]
    while bounds[-1] < last:
        bounds.append(bounds[-1] * ratio)
    return tuple(bounds)


# Upper ends of buckets; a percentile is off by less than one bucket. From a GPU's shortest step to any deadline.
SECONDS = _geometric(20e-6, 60.0, 1.25)
COUNTS = _geometric(1.0, 65536.0, 2.0)
SHOWN = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Histogram(msgspec.Struct, frozen=True):
    """How often values fell where: `counts[i]` of them lie in (bounds[i - 1], bounds[i]], the last above all bounds."""

    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    total: float = 0.0  # of the values
    highest: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """0 without values."""
        return self.total / max(1, self.count)

    def percentile(self, fraction: float) -> float:
        """The value that `fraction` of the values do not exceed, to within its bucket; 0 without values."""
        rank, below, lower = fraction * self.count, 0, 0.0
        for upper, count in zip((*self.bounds, self.highest), self.counts, strict=False):
            if count and below + count >= rank:
                return min(lower + (upper - lower) * max(0.0, rank - below) / count, self.highest)
            below, lower = below + count, upper
        return self.highest

    def since(self, earlier: "Histogram") -> "Histogram":
        """What came after `earlier`, a former state of this one. Its highest value is that of all time."""
        before = earlier.counts or (0,) * len(self.counts)
        counts = tuple(now - then for now, then in zip(self.counts, before, strict=True))
        return Histogram(self.bounds, counts, self.total - earlier.total, self.highest)

    def as_dict(self) -> dict[str, float]:
        shown = {name: self.percentile(fraction) for name, fraction in SHOWN.items()}
        return {"count": self.count, "mean": self.mean, **shown, "highest": self.highest}


class Metrics(msgspec.Struct, frozen=True):
    """What the engine has done so far, and what it holds now."""

    streams: int = 0
    queue_depth: int = 0
    kv_held_bytes: int = 0  # of slots that streams hold
    kv_slab_bytes: int = 0  # taken from the device
    kv_budget_bytes: int = 0
    kept_tokens: int = 0  # of closed prompts, for their owner's next request
    steps: int = 0
    tokens: int = 0
    last_batch: int = 0  # streams in the last step
    evictions: int = 0
    evicted_tokens: int = 0
    replays: int = 0  # questions whose past had to be computed again: evicted, or lost in a restart
    replayed_tokens: int = 0
    shared_tokens: int = 0  # of prompts, that were not computed again
    refusals: int = 0
    faults: int = 0
    restarts: int = 0
    batch_streams: Histogram = Histogram()  # in a step
    batch_tokens: Histogram = Histogram()
    queue: Histogram = Histogram()  # questions without an answer at the start of a step, its own included
    step_seconds: Histogram = Histogram()
    # Of a stream's next tokens, from the turn that took them to their verdicts; what arrives during a step is taken
    # after it, so a door waits longer.
    lag_seconds: Histogram = Histogram()
    open_seconds: Histogram = Histogram()  # the same of prompts
    # The whole wait, from the question at a door to its answer there: sockets, queue, steps and restarts included.
    door_lag_seconds: Histogram = Histogram()
    door_open_seconds: Histogram = Histogram()

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the numbers as they are, the histograms as their percentiles."""
        values = {field: getattr(self, field) for field in self.__struct_fields__}
        return {name: value.as_dict() if isinstance(value, Histogram) else value for name, value in values.items()}


def summed(several: Iterable[Metrics]) -> Metrics:
    """Of engines that work side by side: what each has done and holds, added up."""
    total = Metrics()
    for one in several:
        pairs = ((name, getattr(total, name), getattr(one, name)) for name in Metrics.__struct_fields__)
        total = Metrics(**{name: _added(first, second) for name, first, second in pairs})
    return total


def _added(first: Any, second: Any) -> Any:
    if not isinstance(first, Histogram):
        return first + second
    if not first.counts or not second.counts:
        return first if first.counts else second
    counts = tuple(a + b for a, b in zip(first.counts, second.counts, strict=True))
    return Histogram(first.bounds, counts, first.total + second.total, max(first.highest, second.highest))


@dataclass(slots=True)
class Counters:
    """What the scheduler counts."""

    evictions: int = 0
    evicted_tokens: int = 0  # each is replayed if its stream goes on
    replays: int = 0
    replayed_tokens: int = 0
    shared_tokens: int = 0  # of prompts, taken over from a stream of the same owner
    refusals: int = 0
    faults: int = 0

    def started(self, sequence: Sequence) -> None:
        """A sequence begins to compute its question. A stream that goes on has only the new tokens to compute."""
        job = sequence.job
        if job is not None and not job.is_open and job.reads and sequence.computed < job.reads[0]:
            self.replays += 1
            self.replayed_tokens += job.reads[0] - sequence.computed


class Arrivals:
    """When the questions that have their answer now had arrived."""

    __slots__ = ("feeds", "opens")

    def __init__(self) -> None:
        self.feeds: list[float] = []
        self.opens: list[float] = []

    def add(self, job: Job) -> None:
        (self.opens if job.is_open else self.feeds).append(job.arrived)


class Recorder:
    """A histogram that grows."""

    __slots__ = ("_bounds", "_counts", "_highest", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = self._highest = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value
        if value > self._highest:
            self._highest = value

    def add_all(self, values: Collection[float]) -> None:
        if not values:
            return
        counts, bounds = self._counts, self._bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self._total += sum(values)
        self._highest = max(self._highest, max(values))

    def read(self) -> Histogram:
        return Histogram(self._bounds, tuple(self._counts), self._total, self._highest)


class StepRecorder:
    """What the engine notes of its steps."""

    def __init__(self) -> None:
        self.steps = self.tokens = self.last_batch = 0
        self._batch_streams, self._batch_tokens, self._queue = Recorder(COUNTS), Recorder(COUNTS), Recorder(COUNTS)
        self._seconds, self._lags, self._opens = Recorder(SECONDS), Recorder(SECONDS), Recorder(SECONDS)

    def step(self, chunks: Ordered[Chunk], queue: int, seconds: float) -> None:
        streams, tokens = len(chunks), sum([chunk.count for chunk in chunks])
        self.steps += 1
        self.tokens += tokens
        self.last_batch = streams
        self._batch_streams.add(streams)
        self._batch_tokens.add(tokens)
        self._queue.add(queue)
        self._seconds.add(seconds)

    def answers(self, arrivals: Arrivals, now: float) -> None:
        """Questions that have their answer now."""
        self._lags.add_all([now - arrived for arrived in arrivals.feeds])
        self._opens.add_all([now - arrived for arrived in arrivals.opens])

    def values(self) -> dict[str, Any]:
        """By their names in Metrics."""
        return {
            "steps": self.steps,
            "tokens": self.tokens,
            "last_batch": self.last_batch,
            "batch_streams": self._batch_streams.read(),
            "batch_tokens": self._batch_tokens.read(),
            "queue": self._queue.read(),
            "step_seconds": self._seconds.read(),
            "lag_seconds": self._lags.read(),
            "open_seconds": self._opens.read(),
        }
