"""What is counted, under which labels, and that no request can make new ones."""

import asyncio
import time

from prometheus_client.parser import text_string_to_metric_families

from adapters.base import Note
from proxy.errors import ApiError
from proxy.guard.metrics import Metrics as EngineMetrics
from proxy.guard.metrics import StepRecorder
from proxy.metrics import CODES, KEY_LIMITS, LoopLag, Metrics
from proxy.records import ChannelRecord, Record, RequestOutcome, Scanned
from tests.fakes import ScriptedGuard

Samples = dict[tuple[str, ...], float]


def samples(metrics: Metrics) -> Samples:
    """{(name, values of its labels in the order of their names): value}, as a scraper reads them."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def record(**more: object) -> Record:
    made = Record("weir-1", "/v1/chat/completions", "default", "g@1")
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_a_request_is_counted_by_what_came_of_it() -> None:
    metrics = Metrics(ScriptedGuard)
    note = Note("content", 0, 4, "Unsafe", "Violent", 0.9)
    cut = ChannelRecord(0, "content", received=10, scanned=8, delivered=9, tokens=3, flagged=note, is_cut=True)
    odd = ChannelRecord(0, "made.up.by.an.upstream", received=1, scanned=1, delivered=1, tokens=1, flagged=note)
    metrics.served(record(outcome=RequestOutcome.CUT, scanned=Scanned.FULL, key="alice", prompt_tokens=5,
                          channels=[cut, odd], first_byte_seconds=0.2, upstream_first_byte_seconds=0.02))  # fmt: skip
    found = samples(metrics)
    assert found["weir_requests_total", "/v1/chat/completions", "cut", "full"] == 1
    assert found["weir_key_requests_total", "alice", "cut"] == 1
    assert found["weir_flags_total", "Violent", "content", "default"] == 1
    assert found["weir_flags_total", "Violent", "other", "default"] == 1
    assert {key: value for key, value in found.items() if key[0] == "weir_cuts_total"} == {
        ("weir_cuts_total", "Violent", "content", "default"): 1
    }
    states = {state: found["weir_characters_total", state] for state in ("received", "scanned", "delivered")}
    assert states == {"received": 11, "scanned": 9, "delivered": 10}
    assert found["weir_characters_total", "unscanned"] == 1
    assert found["weir_tokens_total",] == 9
    assert not [key for key in found if key[0].endswith("_created")]
    assert found["weir_first_byte_seconds_count",] == 1
    assert found["weir_upstream_first_byte_seconds_bucket", "0.025"] == 1
    assert abs(found["weir_first_byte_added_seconds_sum",] - 0.18) < 1e-9


def test_a_prompt_that_is_told_of_is_flagged_and_one_that_is_refused_is_cut_too() -> None:
    metrics = Metrics(ScriptedGuard)
    note = Note("prompt", 0, 0, "Unsafe", "Violent", 0.9)
    metrics.served(record(prompt=note, prompt_flagged=True))
    metrics.served(record(prompt=note, prompt_flagged=True, prompt_blocked=True))
    found = samples(metrics)
    assert found["weir_flags_total", "Violent", "prompt", "default"] == 2
    assert found["weir_cuts_total", "Violent", "prompt", "default"] == 1


def test_hold_times_are_told_while_an_answer_is_under_way() -> None:
    metrics = Metrics(ScriptedGuard)
    assert samples(metrics)["weir_hold_seconds_count",] == 0
    metrics.hold_times.released(time.monotonic() - 0.025)
    found = samples(metrics)
    assert found["weir_hold_seconds_bucket", "0.02"] == 0
    assert found["weir_hold_seconds_count",] == 1
    assert found["weir_hold_seconds_sum",] >= 0.025


def test_errors_have_names_of_ours_alone() -> None:
    metrics = Metrics(ScriptedGuard)
    for number in range(1000):
        metrics.refused(ApiError(400, "x", code=f"upstream_{number}"))
    metrics.refused(ApiError(429, "x", code="rate_limit_exceeded", extra={"limit": "max_streams"}))
    metrics.refused(ApiError(429, "x", code="rate_limit_exceeded", extra={"limit": "made up"}))
    found = {key[1]: value for key, value in samples(metrics).items() if key[0] == "weir_errors_total"}
    assert found.keys() == CODES | KEY_LIMITS | {"other"}
    assert {code: count for code, count in found.items() if count} == {"other": 1001, "max_streams": 1}


def test_what_alerts_ask_for_is_told_before_anything_has_happened() -> None:
    """Prometheus takes the first value of a series for no growth: an alert would miss the first errors."""
    found = samples(Metrics(ScriptedGuard))
    for key in (
        ("weir_errors_total", "guard_unavailable"),
        ("weir_characters_total", "unscanned"),
        ("weir_spans_total", "dropped"),
    ):
        assert found[key] == 0


def test_the_engines_numbers_are_told_as_they_are_now() -> None:
    class Counting(ScriptedGuard):
        def metrics(self) -> EngineMetrics:
            return EngineMetrics(streams=3, **steps.values())

    steps = StepRecorder()
    metrics = Metrics(Counting)
    assert samples(metrics)["weir_engine_streams",] == 3
    for seconds in (0.001, 0.002, 0.004):
        steps.step([], 2, seconds)
    found = samples(metrics)
    assert found["weir_engine_steps_total",] == 3
    assert found["weir_engine_step_seconds_count",] == 3
    assert abs(found["weir_engine_step_seconds_sum",] - 0.007) < 1e-9
    buckets = [value for key, value in found.items() if key[0] == "weir_engine_step_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 3


def test_a_guard_that_keeps_no_numbers_tells_none() -> None:
    assert not [key for key in samples(Metrics(ScriptedGuard)) if key[0].startswith("weir_engine")]


async def test_a_loop_that_is_held_up_is_late() -> None:
    metrics = Metrics(ScriptedGuard)
    lag = LoopLag(metrics, after=0.0)
    await asyncio.sleep(0.06)
    time.sleep(0.2)  # noqa: ASYNC251
    await asyncio.sleep(0.06)
    assert lag.lasting < 0.1  # once is no overload
    lag.close()
    found = samples(metrics)
    assert found["weir_loop_lag_worst_seconds",] >= 0.1
    assert found["weir_loop_lag_seconds_count",] >= 2
