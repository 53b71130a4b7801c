"""The queue and the thread: bounded, counted, and closed within its time."""

import logging
import sys
import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from proxy.config import load_settings
from proxy.records import Record
from proxy.redaction import Redactor
from proxy.serving import serve
from proxy.telemetry.exporter import BATCH_REQUESTS, Telemetry, open_telemetry, require_exporter
from proxy.telemetry.spans import Span
from proxy.telemetry_settings import TelemetrySettings


class Sender:
    """Takes spans, unless it is told to refuse, to fail, or to wait until it is closed."""

    def __init__(self, answer: bool | Exception = True, *, hangs: bool = False) -> None:
        self.answer, self.hangs = answer, hangs
        self.batches: list[list[Span]] = []
        self.asked, self.closed = threading.Event(), threading.Event()

    def send(self, spans: Sequence[Span]) -> bool:
        self.asked.set()
        if self.hangs:
            assert self.closed.wait(30)
            return False
        self.batches.append(list(spans))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed.set()


class Counting:
    def __init__(self, sender: Sender, max_queued: int = 1000, **settings: object) -> None:
        self.spans: Counter[str] = Counter()
        wanted = TelemetrySettings.model_validate(settings)
        self.telemetry = Telemetry(wanted, sender, self._count, Redactor(), max_queued)

    def _count(self, state: str, number: int) -> None:
        self.spans[state] += number

    def serve(self, requests: int) -> None:
        for number in range(requests):
            record = Record(f"weir-{number}", "/v1/chat/completions", "default", "g@1")
            self.telemetry.follow(record, "POST", ())
            self.telemetry.put(record)


def test_what_is_put_is_sent_in_batches_and_the_rest_at_the_end() -> None:
    sender = Sender()
    found = Counting(sender)
    found.serve(2 * BATCH_REQUESTS + 3)
    found.telemetry.start()
    found.telemetry.close(30)
    assert [len(batch) for batch in sender.batches] == [BATCH_REQUESTS, BATCH_REQUESTS, 3]
    assert found.spans == {"exported": 2 * BATCH_REQUESTS + 3}


@pytest.mark.parametrize("answer", [False, RuntimeError("sk-canary")])
def test_what_is_refused_is_dropped_and_counted(answer: bool | Exception, caplog: pytest.LogCaptureFixture) -> None:
    found = Counting(Sender(answer))
    found.serve(3)
    found.telemetry.start()
    found.telemetry.close(30)
    assert found.spans == {"dropped": 3}
    assert "3 spans were lost" in caplog.text
    assert "canary" not in caplog.text


def test_a_full_queue_drops_and_says_so_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender(hangs=True)
    found = Counting(sender, max_queued=5)
    found.telemetry.start()
    found.serve(1)
    found.telemetry.put(Record("weir-x", "/v1/models", "default", "g@1"))  # nobody follows it
    assert sender.asked.wait(30)
    with caplog.at_level(logging.WARNING):
        found.serve(50)
    assert found.spans == {"dropped": 45}
    assert len([one for one in caplog.records if one.name == "weir.telemetry"]) == 1
    found.telemetry.close(0.1)
    assert found.spans["dropped"] + found.spans["exported"] >= 50
    assert sender.closed.is_set()


def test_a_hanging_collector_holds_a_stop_up_no_longer_than_it_may() -> None:
    sender = Sender(hangs=True)
    found = Counting(sender)
    found.telemetry.start()
    found.serve(1)
    assert sender.asked.wait(30)
    found.serve(4)
    closing = threading.Thread(target=found.telemetry.close, args=(0.1,))
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    found.serve(1)
    assert found.spans["dropped"] >= 5, "nothing is taken after the end"


def test_requests_that_are_not_sampled_are_nobodys() -> None:
    sender = Sender()
    found = Counting(sender, sample=0.0)
    found.telemetry.start()
    found.serve(10)
    found.telemetry.close(30)
    assert (sender.batches, found.spans) == ([], {})


async def test_without_an_endpoint_there_is_none() -> None:
    settings = load_settings(environ={})
    require_exporter(settings, {})
    async with open_telemetry(settings, lambda state, number: None, {}) as telemetry:
        assert telemetry is None


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("WEIR_TELEMETRY__ENDPOINT", "[telemetry] endpoint is set, but"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "or set OTEL_SDK_DISABLED=true."),
    ],
)
def test_a_start_without_the_packages_says_what_to_install(
    variable: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As where it is not installed.
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "proxy.telemetry.otlp", raising=False)
    is_setting = variable.startswith("WEIR_")
    if not is_setting:
        monkeypatch.setenv(variable, "http://127.0.0.1:4318")
    environ = {variable: "http://127.0.0.1:4318"} if is_setting else {}
    settings = load_settings(overrides={"upstream.base_url": "http://127.0.0.1:9"}, environ=environ)
    assert serve(settings, lambda: settings) == 2
    told = capsys.readouterr().err
    assert "pip install 'weir-proxy[otel]'" in told
    assert said in told
