"""Numbers of several processes as one."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from proxy.joint_metrics import Family, JointMetrics, family, read_families
from proxy.metrics import Metrics
from tests.fakes import ScriptedGuard


def process(requests: int, lag: float, steps: int) -> list[Family]:
    """One that has served so many requests, each in half a second."""
    registry = CollectorRegistry()
    served = Counter("weir_requests", "r", ["outcome"], registry=registry)
    seconds = Histogram("weir_request_seconds", "s", buckets=(0.1, 1.0), registry=registry)
    for _ in range(requests):
        served.labels("complete").inc()
        seconds.observe(0.5)
    Gauge("weir_streams", "n", registry=registry).set(requests)
    Gauge("weir_loop_lag_worst_seconds", "w", registry=registry).set(lag)
    Counter("weir_engine_steps", "e", registry=registry).inc(steps)
    Histogram("weir_engine_door_lag_seconds", "d", buckets=(1.0,), registry=registry).observe(0.2)
    return read_families(registry)


def told(joint: JointMetrics, families: list[Family]) -> bytes:
    joint.add_up(families)
    return joint.text()


def read(text: bytes) -> dict[str, float]:
    families = text_string_to_metric_families(text.decode())
    return {one.name + (one.labels.get("le") or ""): one.value for family in families for one in family.samples}


def test_what_each_counts_is_added_up_and_what_they_share_is_not() -> None:
    found = read(told(JointMetrics(), [*process(2, 0.3, 10), *process(3, 0.1, 11)]))
    assert found["weir_requests_total"] == 5
    assert (found["weir_request_seconds_bucket0.1"], found["weir_request_seconds_bucket1.0"]) == (0, 5)
    assert (found["weir_request_seconds_count"], found["weir_request_seconds_sum"]) == (5, 2.5)
    assert found["weir_streams"] == 5
    assert found["weir_loop_lag_worst_seconds"] == 0.3
    assert found["weir_engine_steps_total"] == 11
    assert found["weir_engine_door_lag_seconds_count"] == 2


def test_a_counter_never_falls_when_a_process_dies() -> None:
    joint = JointMetrics()
    joint.retire(process(2, 0.3, 10))
    joint.retire(process(1, 0.2, 10))
    for _ in range(2):
        found = read(told(joint, process(3, 0.1, 4)))
        assert found["weir_requests_total"] == 6
        assert found["weir_request_seconds_bucket1.0"] == 6
        assert found["weir_streams"] == 3  # of now
        assert found["weir_loop_lag_worst_seconds"] == 0.1
        assert found["weir_engine_steps_total"] == 4  # of an engine that is new, too


def test_a_number_is_a_family() -> None:
    one, other = family("a", "x", "gauge", 2), family("b", "y", "counter", 3)
    assert read(told(JointMetrics(), [one, other])) == {"a": 2, "b_total": 3}


def test_nobody_tells_nothing() -> None:
    assert read(told(JointMetrics(), [])) == {}


def test_hold_times_of_several_processes_are_one_histogram() -> None:
    families = []
    for waits in ((0.0,), (0.0, 1000.0)):
        metrics = Metrics(ScriptedGuard)
        for wait in waits:
            metrics.hold_times.released(time.monotonic() - wait)
        metrics.count_spans("dropped", 2)
        families += read_families(metrics.registry)
    text = told(JointMetrics(), families).decode()
    found = {(s.name, *s.labels.values()): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert found["weir_hold_seconds_count",] == 3
    assert found["weir_hold_seconds_bucket", "10"] == 2
    assert found["weir_hold_seconds_sum",] >= 1000
    assert found["weir_spans_total", "dropped"] == 4
