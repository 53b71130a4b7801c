"""What is noted of a request."""

from proxy.settings import UpstreamSettings
from proxy.telemetry.context import Place, SpanContext
from proxy.telemetry.request import Called, RequestNotes, place_of
from proxy.telemetry_settings import TelemetrySettings


def notes(**settings: object) -> RequestNotes:
    return RequestNotes(Place(SpanContext(7, 8)), "POST", TelemetrySettings.model_validate(settings))


def test_a_call_is_an_interval_and_its_end_without_a_call_is_none() -> None:
    found = notes()
    found.end_call(1.0)
    assert (found.upstream, found.spans) == (None, 1)
    found.call(UpstreamSettings(base_url="https://api.openai.com/v1"), 2.0)
    found.end_call(3.0)
    assert found.upstream == (2.0, 3.0)
    assert found.called == Called("openai", "api.openai.com", 443)
    found.prompt = found.answer = (0.0, 1.0)
    assert found.spans == 4


def test_the_upstream_is_told_of_the_span_of_the_call_not_of_ours() -> None:
    found = notes(upstream_traces="own")
    assert found.sent_headers({})["traceparent"] == f"00-{7:032x}-{found.upstream_id:016x}-01"
    assert found.upstream_id != 8


def test_ports() -> None:
    assert place_of("http://h/v1") == ("h", 80)
    assert place_of("http://[::1]:8000") == ("::1", 8000)
    assert place_of("") == ("", 80)
