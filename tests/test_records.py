"""One record a request, of numbers and names alone."""

import json

import pytest

from adapters.base import Key, Note
from proxy.records import ChannelRecord, Record, RequestOutcome, Scanned, channel_record, scanned_of
from tests.fakes import labels
from tests.servers import recorded
from tests.test_reports import channel_of


def record_of(scanned: int, delivered: int) -> ChannelRecord:
    return ChannelRecord(0, "content", 10, scanned, delivered, 3)


@pytest.mark.parametrize(
    ("channels", "parts", "expected"),
    [
        ([], (), Scanned.FULL),
        ([(10, 10), (5, 5)], (), Scanned.FULL),
        ([(10, 4)], (), Scanned.FULL),
        ([(10, 10)], ("image_url",), Scanned.PARTIAL),
        ([(10, 10), (4, 5)], (), Scanned.PARTIAL),
        ([(0, 5)], (), Scanned.NONE),
        ([(0, 5)], ("image_url",), Scanned.NONE),
    ],
)
def test_scanned_is_said_only_of_what_was(
    channels: list[tuple[int, int]], parts: tuple[str, ...], expected: Scanned
) -> None:
    assert scanned_of([record_of(*numbers) for numbers in channels], parts) is expected


def test_a_channel_is_recorded_by_its_numbers() -> None:
    found = channel_record(Key(0, "content"), channel_of("one two three", labels("SUU")), 3)
    assert (found.received, found.scanned, found.delivered, found.tokens) == (13, 13, 3, 3)
    assert found.flagged == Note("content", 3, 13, "Unsafe", "Violent", 0.9)
    assert found.worst is not None
    assert channel_record(Key(0, "content"), channel_of("", labels("")), 0).worst is None


def test_a_record_is_one_line_of_json_whatever_is_in_it() -> None:
    record = Record("weir-1", "/v1/x", "default", "g@1")
    record.model = 'a\r\n{"x"}\x1b[31m\u202e'
    record.outcome = RequestOutcome.CUT
    record.channels = [record_of(1, 1)]
    with recorded() as records:
        record.write()
    [line] = records.lines
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    assert found["model"] == record.model
    assert found["outcome"] == "cut"
    assert found["seconds"] >= 0
    assert found["channels"][0]["delivered"] == 1
    assert not any(name.startswith("_") for name in found)


def test_a_record_is_told_in_what_json_has() -> None:
    """Databases ask for the kinds exactly: a member of an enum is a string to Python, and to them none."""
    note = Note("content", 0, 3, "Unsafe", "Violent", 0.9)
    record = Record("weir-1", "/v1/x", "default", "g@1", started=1.23456789, prompt=note)
    record.channels = [ChannelRecord(0, "content", 10, 9, 8, 3, worst=note, flagged=note)]
    record.unscanned_parts, record.dropped_parameters = ("image_url",), ("seed",)
    record.first_byte_seconds = 0.1234567
    told = record.as_dict()
    assert json.loads(json.dumps(told)) == told | {"unscanned_parts": ["image_url"], "dropped_parameters": ["seed"]}
    assert {type(value) for value in told.values()} <= {str, int, float, bool, type(None), list, tuple, dict}
    assert (told["started"], told["first_byte_seconds"]) == (1.234568, 0.123457)
    assert told["channels"][0]["flagged"]["category"] == told["prompt"]["category"] == "Violent"
    assert list(told)[:4] == ["request_id", "endpoint", "policy", "guard"]
    assert not any(name.startswith("_") for name in told)
