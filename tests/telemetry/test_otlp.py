"""Spans through OpenTelemetry's own SDK: ids, times and states as they were noted."""

import asyncio

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs weir-proxy[otel]")

from proxy.telemetry.context import SpanContext
from proxy.telemetry.otlp import OtlpSender, resource
from proxy.telemetry.spans import CLIENT, SERVER, Span, SpanEvent
from tests.collector import Collector

OWN, KIN = SpanContext(1 << 100, 5), SpanContext(3, 4)
REQUEST = Span("POST /x", SERVER, OWN, None, 100.0, 101.5, {"a": 1}, linked=KIN)
CALL = Span("chat m", CLIENT, SpanContext(OWN.trace_id, 6), OWN, 100.25, 101.0, {"b": ["x"]},
            (SpanEvent("first", 100.5, {"c": True}),), is_error=True)  # fmt: skip


async def test_spans_keep_what_was_noted() -> None:
    async with Collector().running() as collector:
        sender = OtlpSender(f"{collector.url}/v1/traces")
        try:
            assert await asyncio.to_thread(sender.send, [REQUEST, CALL])
        finally:
            sender.close()
    own, call = collector.spans
    assert (own.trace_id, own.span_id, own.parent_id) == (f"{OWN.trace_id:032x}", f"{5:016x}", "")
    assert (call.trace_id, call.span_id, call.parent_id) == (own.trace_id, f"{6:016x}", own.span_id)
    assert own.links == [(f"{3:032x}", f"{4:016x}")]
    assert (own.begin, own.end) == (100_000_000_000, 101_500_000_000)
    assert (own.attributes, call.attributes, call.events) == ({"a": 1}, {"b": ["x"]}, {"first": {"c": True}})
    assert (own.is_error, call.is_error) == (False, True)


async def test_a_refusal_is_one() -> None:
    async with Collector(status=400).running() as collector:
        sender = OtlpSender(f"{collector.url}/v1/traces")
        assert not await asyncio.to_thread(sender.send, [REQUEST])
        sender.close()


def test_each_process_is_an_instance_and_the_variables_have_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = resource().attributes, resource().attributes
    assert one["service.name"] == "weir"
    assert one["service.instance.id"] != other["service.instance.id"]
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=gate,team=a")
    assert {**resource().attributes}.items() >= {"service.name": "gate", "team": "a"}.items()
