"""The numbers of /metrics as a page gets them."""

from adapters.base import Note
from proxy.console.live import live_of
from proxy.guard.metrics import Metrics as EngineMetrics
from proxy.metrics import Metrics
from proxy.records import ChannelRecord, RequestOutcome
from tests.fakes import ScriptedGuard
from tests.test_metrics import record


def test_counters_are_summed_by_one_label() -> None:
    metrics = Metrics(ScriptedGuard)
    flagged = Note("content", 0, 4, "Unsafe", "Violent", 0.9)
    channel = ChannelRecord(0, "content", received=10, scanned=8, delivered=9, tokens=3, flagged=flagged)
    for endpoint in ("/v1/chat/completions", "/v1/messages"):
        one = record(outcome=RequestOutcome.CUT, channels=[channel], guard_lag_max_seconds=0.02, prompt_tokens=5)
        one.endpoint = endpoint
        metrics.served(one)
    found = live_of(metrics.registry.collect())
    assert found["requests"] == {"cut": 2}
    assert found["cuts"] == {"Violent": 2}
    assert found["characters"] == {"received": 20, "scanned": 16, "delivered": 18, "unscanned": 2}
    assert found["tokens"] == 16
    assert found["engine"] == {}
    bounds, counts = zip(*found["guard_lag"], strict=True)
    assert bounds[-1] is None
    assert list(bounds[:-1]) == sorted(bounds[:-1])
    assert dict(found["guard_lag"])[0.01] == 0
    assert dict(found["guard_lag"])[0.025] == 2
    assert counts[-1] == 2


def test_nothing_has_happened_yet() -> None:
    found = live_of(Metrics(ScriptedGuard).registry.collect())
    assert found["requests"] == found["cuts"] == found["errors"] == {}
    assert found["tokens"] == found["streams"] == 0
    assert found["guard_lag"][-1] == (None, 0)


def test_the_engine_tells_its_single_numbers() -> None:
    class Counting(ScriptedGuard):
        def metrics(self) -> EngineMetrics:
            return EngineMetrics(streams=3, restarts=1)

    engine = live_of(Metrics(Counting).registry.collect())["engine"]
    assert engine["streams"] == 3
    assert engine["restarts"] == 1
    assert "step_seconds" not in engine


def test_what_nobody_has_told_yet_is_nothing() -> None:
    found = live_of([])
    assert found["requests"] == found["engine"] == {}
    assert (found["tokens"], found["guard_lag"]) == (0, [])
    assert "workers" not in found
