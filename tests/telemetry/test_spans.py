"""A finished request as spans, without a network. The whole path is in tests/e2e/test_traces.py."""

import json
from collections.abc import Sequence
from typing import Any

from adapters.base import Key, Note
from proxy.records import ChannelRecord, Record, RequestOutcome
from proxy.redaction import Redactor
from proxy.settings import UpstreamSettings
from proxy.telemetry.context import Place, SpanContext
from proxy.telemetry.request import RequestNotes
from proxy.telemetry.spans import MAX_CONTENT_CHARACTERS, MAX_NAME_CHARACTERS, Span, spans_of
from proxy.telemetry_settings import TelemetrySettings
from proxy.trace import unpack

REDACTOR = Redactor(["sk-canary"])


def served(**more: object) -> tuple[Record, RequestNotes]:
    record = Record("weir-1", "/v1/chat/completions", "default", "g@1", started=100.0)
    for name, value in more.items():
        setattr(record, name, value)
    notes = RequestNotes(Place(SpanContext(7, 8)), "POST", TelemetrySettings())
    notes.call(UpstreamSettings(base_url="http://h:1/v1"), 0.5)
    notes.end_call(2.0)
    record.follow(notes)
    return record, notes


def named(spans: Sequence[Span]) -> dict[str, Span]:
    return {span.name.split()[0]: span for span in spans}


def test_times_are_seconds_from_the_beginning() -> None:
    record, notes = served(seconds=3.0, upstream_first_byte_seconds=0.75, stream=True)
    found = named(spans_of(record, notes, REDACTOR))
    assert (found["POST"].begin, found["POST"].end) == (100.0, 103.0)
    assert (found["chat"].begin, found["chat"].end) == (100.5, 102.0)
    assert found["chat"].events[0].at == 100.75
    assert found["chat"].attributes["gen_ai.response.time_to_first_chunk"] == 0.25


def test_each_flagged_text_is_an_event_that_says_whether_it_was_cut() -> None:
    note = Note("content", 3, 9, "Unsafe", "Violent", 0.9)
    channels = [
        ChannelRecord(0, "content", 10, 8, 3, 3, flagged=note, is_cut=True),
        ChannelRecord(0, "reasoning", 10, 8, 9, 3, flagged=note),
        ChannelRecord(1, "content", 10, 8, 9, 3),
    ]
    record, notes = served(channels=channels, outcome=RequestOutcome.CUT)
    notes.answer = (0.6, 1.5)
    events = named(spans_of(record, notes, REDACTOR))["guard"].events
    assert [(one.name, one.attributes["weir.channel"], one.at) for one in events] == [
        ("weir.cut", "content", 101.5),
        ("weir.flag", "reasoning", 101.5),
    ]


def test_names_of_clients_are_bounded() -> None:
    record, notes = served(model="m" * 10_000)
    for span in spans_of(record, notes, REDACTOR):
        assert len(str(span.attributes["gen_ai.request.model"])) == MAX_NAME_CHARACTERS
        assert len(span.name) < MAX_NAME_CHARACTERS + 100


def test_what_a_record_says_of_an_error_is_not_told_but_its_code() -> None:
    record, notes = served(error="upstream says: canary words", outcome=RequestOutcome.ERROR)
    notes.error = "upstream_error"
    spans = spans_of(record, notes, REDACTOR)
    assert "canary" not in repr(spans)
    assert named(spans)["chat"].attributes["error.type"] == "upstream_error"
    notes.error = None
    assert named(spans_of(record, notes, REDACTOR))["POST"].attributes["error.type"] == "_OTHER"


def test_content_is_bounded_the_newest_of_a_prompt_stays_and_keys_do_not() -> None:
    record, notes = served()
    parts: list[Any] = [{"type": "text", "text": "newest sk-canary"}, {"type": "image_url"}]
    prompt: list[dict[str, Any]] = [
        {"role": "user", "content": "o" * 2 * MAX_CONTENT_CHARACTERS},
        {"role": "user", "content": parts},
    ]
    record.trace(prompt, {}, keeps_text=False, tells_text=True)
    assert record.traces is not None
    record.traces.open(Key(0, "content")).feed("a" * 2 * MAX_CONTENT_CHARACTERS)
    record.traces.open(Key(1, "content")).feed("b")
    seen = named(spans_of(record, notes, REDACTOR))["chat"].attributes
    older, newest = json.loads(str(seen["gen_ai.input.messages"]))
    assert newest["parts"] == [{"type": "text", "content": "newest *********"}]
    assert 0 < len(older["parts"][0]["content"]) < MAX_CONTENT_CHARACTERS
    first, second = json.loads(str(seen["gen_ai.output.messages"]))
    assert len(first["parts"][0]["content"]) == MAX_CONTENT_CHARACTERS
    assert second["parts"][0]["content"] == ""


def test_text_that_spans_tell_is_not_kept_in_the_record() -> None:
    record, _ = served()
    record.trace([{"role": "user", "content": "canary"}], {}, keeps_text=False, tells_text=True)
    assert record.traces is not None
    record.traces.open(Key(0, "content")).feed("canary")
    assert record.said(REDACTOR).texts == [(Key(0, "content"), "canary")]
    packed = record.pack_trace(REDACTOR)
    assert packed is not None
    assert "canary" not in json.dumps(unpack(packed))
