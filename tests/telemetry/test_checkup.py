"""What `weir doctor` says of traces."""

import asyncio
import sys

import pytest

from proxy.telemetry.checkup import check_traces
from proxy.telemetry_settings import TelemetrySettings
from tests.collector import Collector


def test_nothing_where_they_are_off() -> None:
    assert check_traces(TelemetrySettings(), {}) is None


def test_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "proxy.telemetry.otlp", raising=False)
    found = check_traces(TelemetrySettings(endpoint="http://127.0.0.1:9"), {})
    assert found is not None
    assert (found.status, "pip install" in found.said) == ("fail", True)


@pytest.mark.parametrize(("status", "said"), [(200, "ok"), (403, "warn")])
async def test_whether_the_collector_takes_them(status: int, said: str) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs weir-proxy[otel]")
    async with Collector(status=status).running() as collector:
        place = collector.url.removeprefix("http://")
        settings = TelemetrySettings(endpoint=f"{collector.url}/v1/traces?token=canary")
        found = await asyncio.to_thread(check_traces, settings, {})
    assert found is not None
    assert found.status == said
    assert f"the collector at {place} " in found.said
    assert "canary" not in found.said + found.todo
    assert collector.spans == []
