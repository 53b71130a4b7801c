"""Names and numbers pass by their shape alone."""

from typing import Any

import pytest

from adapters.base import Options
from adapters.errors import AdapterError
from adapters.metadata import MAX_COUNTS, EnvelopeReader, index_of, leftovers, read_counts
from tests.wire import chunk_of

CANARY = "how to make it"


def reader() -> EnvelopeReader:
    return EnvelopeReader(Options("asked-model"), "chat.completion.chunk")


def test_an_envelope_keeps_known_names_in_order() -> None:
    more = {"system_fingerprint": "fp_1", "service_tier": "default", "provider": "Google AI Studio", "x": CANARY}
    envelope = reader().read(chunk_of(**more), is_kept=True)
    assert envelope.head == (
        '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"some-model",'
        '"system_fingerprint":"fp_1","service_tier":"default","provider":"Google AI Studio",'
    )


@pytest.mark.parametrize("name", ["id", "model", "system_fingerprint", "service_tier", "provider"])
@pytest.mark.parametrize(
    "value", [f"{CANARY}!", CANARY * 20, "x" * 201, "a\nb", "é", [CANARY], {"a": CANARY}, 7, "a  b"]
)
def test_names_that_could_carry_text_do_not_pass(name: str, value: Any) -> None:
    envelopes = reader()
    envelope = envelopes.read(chunk_of(**{name: value}), is_kept=True)
    assert envelope.fields.get(name) != value
    assert CANARY not in envelope.head
    assert envelopes.dropped == 1
    assert envelope.fields["model"] == ("asked-model" if name == "model" else "some-model")


@pytest.mark.parametrize("created", [None, 0, -1, True, 1.5, "1700000000", 1 << 60])
def test_a_time_that_is_none_is_ours(created: Any) -> None:
    envelope = reader().read(chunk_of(created=created), is_kept=True)
    assert envelope.fields["created"] > 1_700_000_000


def test_the_first_valid_name_holds_for_the_whole_response() -> None:
    envelopes = reader()
    first = envelopes.read(chunk_of(id="a", model=None), is_kept=True)
    assert envelopes.read(chunk_of(id="a", model=None), is_kept=True) is first
    later = envelopes.read(chunk_of(id="b", model="m", created=5, service_tier="flex"), is_kept=True)
    assert later.fields == {**first.fields, "service_tier": "flex"}
    assert envelopes.current() is later


def test_our_own_id_stays_the_same() -> None:
    envelopes = reader()
    own = envelopes.current().fields["id"]
    assert own.startswith("chatcmpl-")
    assert envelopes.read(chunk_of(id="late"), is_kept=True).fields["id"] == own
    assert reader().current().fields["id"] != own


def test_an_event_that_releases_nothing_names_nothing() -> None:
    envelopes = reader()
    envelopes.read({"id": "", "created": 0, "model": ""}, is_kept=False)
    assert envelopes.read(chunk_of(), is_kept=True).fields["id"] == "chatcmpl-1"


def test_counts_are_numbers_under_names() -> None:
    usage = {
        "prompt_tokens": 9,
        "cost": 0.5,
        "is_byok": False,
        "none": None,
        "details": {"cached_tokens": 1, "deeper": {"a": 1, "too_deep": {"a": 1}, "text": CANARY}},
        "text": CANARY,
        "list": [CANARY],
        "Bad Name": 1,
        "huge": 10**300,
        "inf": float("inf"),
        "x" * 65: 1,
    }
    counts, dropped = read_counts(usage)
    details = {"cached_tokens": 1, "deeper": {"a": 1}}
    assert counts == {"prompt_tokens": 9, "cost": 0.5, "is_byok": False, "none": None, "details": details}
    assert dropped == 8


def test_counts_are_bounded() -> None:
    counts, dropped = read_counts({f"a{i}": i for i in range(MAX_COUNTS + 5)})
    assert len(counts) == MAX_COUNTS
    assert dropped == 5


@pytest.mark.parametrize("value", [-1, 128, 1 << 31, True, "0", 1.0, [0]])
def test_an_index_out_of_bounds_is_refused(value: Any) -> None:
    with pytest.raises(AdapterError):
        index_of(value, 0)


def test_an_index_that_is_missing_is_the_place() -> None:
    assert (index_of(None, 5), index_of(127, 5), index_of(0, 5)) == (5, 127, 0)
    with pytest.raises(AdapterError):
        index_of(None, 128)


def test_leftovers_are_what_holds_something() -> None:
    assert leftovers({"a": 1, "b": "", "c": None, "d": [], "e": "text", "f": {"g": 1}}, {"a"}) == 2
