"""Numbers for monitoring, in Prometheus' text format. Labels take values from lists of ours, never from a request."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from adapters.base import Note
from proxy.errors import ApiError
from proxy.guard.metrics import Histogram as EngineHistogram
from proxy.guard.metrics import Metrics as EngineMetrics
from proxy.guard.protocol import Guard
from proxy.hold_times import HoldTimes
from proxy.records import Record, RequestOutcome, Scanned

# What errors are counted by; any other code is an upstream's own word, and counted as "other".
CODES = frozenset({
    "slow_client", "starting", "too_many_connections",
    "content_filter", "context_length_exceeded", "guard_unavailable", "held_too_much", "internal_error",
    "invalid_api_key", "invalid_body", "invalid_json", "invalid_value", "model_not_found", "not_found", "overloaded",
    "request_timeout", "request_too_large", "several_credentials", "shutting_down", "total_timeout",
    "unknown_parameter", "unsupported_charset", "unsupported_content_encoding", "unsupported_http_version",
    "unsupported_media_type", "unsupported_value", "upstream_ended", "upstream_error", "upstream_timeout",
    "upstream_unreachable", "upstream_unreadable", "wrong_host", "wrong_origin",
})  # fmt: skip
# Limits of a key share one code, and are told apart by their names.
KEY_LIMITS = frozenset({"max_streams", "requests_per_minute", "tokens_per_minute"})
CHANNELS = frozenset({
    "audio", "content", "delta", "function_call", "prompt", "reasoning", "reasoning_content", "refusal", "text",
    "thinking", "tool_calls",
})  # fmt: skip
OTHER = "other"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# Of the engine's fine buckets each fourth is told: a factor of 2.4 between two.
ENGINE_BUCKET_STEP = 4
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
# How often the event loop is asked how late it is.
LAG_EVERY_SECONDS = 0.05
# Half a second of them.
LASTING_SAMPLES = 10
# A start holds the loop up, and nobody yet: what is loaded is taken out of the garbage collector's sight then.
LAG_AFTER_SECONDS = 1.0

# The library would tell of each series when it began: twice as many lines, of use to nobody here.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """What one process has served so far."""

    def __init__(self, guard: Callable[[], Guard]) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "weir_requests",
            "Moderated requests that ended.",
            ["endpoint", "outcome", "scanned"],
            registry=registry,
        )
        self.key_requests = Counter("weir_key_requests", "The same by key.", ["key", "outcome"], registry=registry)
        self.errors = Counter("weir_errors", "Refused requests and broken answers.", ["code"], registry=registry)
        self.limits = Counter("weir_limits", "Limits that were met.", ["limit"], registry=registry)
        what = ["channel", "category", "policy"]
        self.flags = Counter(
            "weir_flags", "Texts that were flagged: cut, or told of, as the policy says.", what, registry=registry
        )
        self.cuts = Counter("weir_cuts", "Of them those that were cut, or refused: prompts.", what, registry=registry)
        self.characters = Counter(
            "weir_characters", "Characters of answers.", ["state"], registry=registry
        )  # received, scanned, delivered, unscanned: delivered without a verdict
        self.tokens = Counter("weir_tokens", "Tokens judged, of prompts and answers.", registry=registry)
        self.first_byte = Histogram(
            "weir_first_byte_seconds", "From a request to our first byte.", buckets=SECONDS, registry=registry
        )
        self.upstream_first_byte = Histogram(
            "weir_upstream_first_byte_seconds", "From a request to the upstream's head.",
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.first_byte_added = Histogram(
            "weir_first_byte_added_seconds", "From the upstream's head to our first byte.",
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.seconds = Histogram("weir_request_seconds", "Whole requests.", buckets=SECONDS, registry=registry)
        self.guard_lag = Histogram(
            "weir_guard_lag_seconds", "The longest wait for a verdict in each answer.", buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.loop_lag = Histogram(
            "weir_loop_lag_seconds", "How late the event loop is.", buckets=LAG_SECONDS, registry=registry
        )
        self.loop_lag_worst = Gauge(
            "weir_loop_lag_worst_seconds", "The latest that the event loop ever was.", registry=registry
        )
        self.spans = Counter("weir_spans", "Spans of traces.", ["state"], registry=registry)  # exported, dropped
        self.streams = Gauge("weir_streams", "Moderated requests under way.", registry=registry)
        self._children: dict[tuple[Counter, tuple[str, ...]], Counter] = {}  # as few as there are series
        self.hold_times = HoldTimes()
        registry.register(_Holds(self.hold_times))
        registry.register(_Engine(guard))
        self._begin()

    def _begin(self) -> None:
        """What alerts ask for is there from the start: Prometheus takes the first value of a series for no growth."""
        for code in sorted(CODES | KEY_LIMITS | {OTHER}):
            self.errors.labels(code)
        for state in ("received", "scanned", "delivered", "unscanned"):
            self._child(self.characters, state)
        for state in ("exported", "dropped"):
            self.spans.labels(state)

    def served(self, record: Record) -> None:
        """A request that has ended."""
        self._child(self.requests, record.endpoint, record.outcome, record.scanned).inc()
        if record.key:
            self._child(self.key_requests, record.key, record.outcome).inc()
        self.seconds.observe(record.seconds)
        waits = (
            (self.first_byte, record.first_byte_seconds),
            (self.upstream_first_byte, record.upstream_first_byte_seconds),
            (self.first_byte_added, record.first_byte_added_seconds),
            (self.guard_lag, record.guard_lag_max_seconds),
        )
        for histogram, value in waits:
            if value is not None:
                histogram.observe(value)
        self.tokens.inc(record.tokens)
        if record.prompt is not None and record.prompt_flagged:
            self._flagged("prompt", record.prompt, record.policy, is_cut=record.prompt_blocked)
        for channel in record.channels:
            for state in ("received", "scanned", "delivered"):
                self._child(self.characters, state).inc(getattr(channel, state))
            self._child(self.characters, "unscanned").inc(max(0, channel.delivered - channel.scanned))
            if channel.flagged is not None:
                name = channel.channel.partition(".")[0]
                known = name if name in CHANNELS else OTHER
                self._flagged(known, channel.flagged, record.policy, is_cut=channel.is_cut)

    def _flagged(self, channel: str, note: Note, policy: str, *, is_cut: bool) -> None:
        for counter in (self.flags, self.cuts) if is_cut else (self.flags,):
            counter.labels(channel, note.category or OTHER, policy).inc()

    def _child(self, family: Counter, *labels: str) -> Counter:
        """`family.labels(...)`, looked for once."""
        found = self._children.get((family, labels))
        if found is None:
            found = self._children[family, labels] = family.labels(*labels)
        return found

    def shed(self, endpoint: str, error: ApiError) -> None:
        """A request that was refused before it was read, and of which there is no record."""
        self._child(self.requests, endpoint, RequestOutcome.REFUSED, Scanned.NONE).inc()
        self.refused(error)

    def refused(self, error: ApiError) -> None:
        """A request that got an error, before its answer or within it; without a code, one that never was."""
        if error.limit:
            self.limits.labels(error.limit).inc()
        if error.limit and error.code is None:
            return
        self.errors.labels(name_of(error)).inc()

    def count_spans(self, state: str, number: int) -> None:
        """For any thread."""
        self.spans.labels(state).inc(number)

    def text(self) -> bytes:
        return generate_latest(self.registry)


def name_of(error: ApiError) -> str:
    """One of a list of ours: an upstream's own word is none."""
    limit = error.extra.get("limit")
    known = limit if limit in KEY_LIMITS else error.code
    return known if known in CODES | KEY_LIMITS else OTHER


class LoopLag:
    """Asks the event loop to be called, again and again, and notes how late it was."""

    def __init__(self, metrics: Metrics, after: float = LAG_AFTER_SECONDS) -> None:
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + after
        self._worst = 0.0
        self._newest: deque[float] = deque([0.0], maxlen=LASTING_SAMPLES)
        self._timer = self._loop.call_at(self._due, self._note)

    @property
    def lasting(self) -> float:
        """What no sample of the last half a second was below: one long turn is no overload, a queue without end is."""
        return min(self._newest)

    def _note(self) -> None:
        now = self._loop.time()
        lag = max(0.0, now - self._due)
        self._metrics.loop_lag.observe(lag)
        self._newest.append(lag)
        if lag > self._worst:
            self._worst = lag
            self._metrics.loop_lag_worst.set(lag)
        self._due = now + LAG_EVERY_SECONDS
        self._timer = self._loop.call_at(self._due, self._note)

    def close(self) -> None:
        self._timer.cancel()


class _Engine(Collector):
    """The guard engine's own numbers, as they are when somebody asks. A guard that keeps none tells none."""

    # Numbers that only grow; the others are of now.
    TOTALS = frozenset({
        "steps", "tokens", "evictions", "evicted_tokens", "replays", "replayed_tokens", "shared_tokens", "refusals",
        "faults", "restarts",
    })  # fmt: skip

    def __init__(self, guard: Callable[[], Guard]) -> None:
        self._guard = guard

    def describe(self) -> Sequence[GaugeMetricFamily]:
        return ()

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        read = getattr(self._guard(), "metrics", None)
        found = read() if callable(read) else None
        if not isinstance(found, EngineMetrics):
            return
        for name in found.__struct_fields__:
            value, shown, said = getattr(found, name), f"weir_engine_{name}", f"The engine's {name.replace('_', ' ')}."
            if isinstance(value, EngineHistogram):
                if value.counts:
                    yield _family(shown, said, value, ENGINE_BUCKET_STEP)
            elif name in self.TOTALS:
                yield CounterMetricFamily(shown, said, value=value)
            else:
                yield GaugeMetricFamily(shown, said, value=value)


class _Holds(Collector):
    """How long streamed text was held, as it is when somebody asks: an answer under way counts."""

    def __init__(self, times: HoldTimes) -> None:
        self._times = times

    def describe(self) -> Sequence[HistogramMetricFamily]:
        return ()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        said = "From the arrival of text to its release, for each part of a stream that left at once."
        yield _family("weir_hold_seconds", said, self._times.read(), 1)


def _family(name: str, said: str, histogram: EngineHistogram, step: int) -> HistogramMetricFamily:
    """With each bucket whose number is a multiple of `step`."""
    below, buckets = 0, []
    for number, (bound, count) in enumerate(zip(histogram.bounds, histogram.counts, strict=False), 1):
        below += count
        if number % step == 0:
            buckets.append((f"{bound:.6g}", float(below)))
    buckets.append(("+Inf", float(histogram.count)))
    return HistogramMetricFamily(name, said, buckets=buckets, sum_value=histogram.total)
