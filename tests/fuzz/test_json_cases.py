"""JSON in both directions: what is read of clients and upstreams, and what is written to them."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterError
from adapters.strict_json import read_object as read_event_object
from adapters.strict_json import write
from proxy.request_body import BadRequest, dump, read_object
from tests.fuzz.json_cases import CASES
from tests.fuzz.targets import MAX_DEPTH, strictly

TAKEN = [name for name in CASES if name.startswith("y-")]
REFUSED = [name for name in CASES if name.startswith("n-")]
OPEN = [name for name in CASES if name.startswith("i-")]


@pytest.mark.parametrize("name", TAKEN)
def test_what_every_reader_takes_is_read_alike(name: str) -> None:
    data, _ = CASES[name]
    expected = repr(json.loads(data))
    assert repr(read_object(data, max_depth=MAX_DEPTH)) == expected
    assert repr(read_event_object(data.decode())) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_every_reader_refuses_is_refused(name: str) -> None:
    data, _ = CASES[name]
    with pytest.raises(BadRequest):
        read_object(data, max_depth=MAX_DEPTH)
    with pytest.raises(AdapterError):
        read_event_object(data.decode("utf-8", "replace"))


@pytest.mark.parametrize("name", OPEN)
def test_where_readers_differ_a_request_is_refused_or_passes_as_it_is(name: str) -> None:
    data, verdict = CASES[name]
    if verdict == "reject":
        with pytest.raises(BadRequest):
            read_object(data, max_depth=MAX_DEPTH)
    else:
        assert read_object(dump(read_object(data, max_depth=MAX_DEPTH)), max_depth=MAX_DEPTH) == json.loads(data)


@pytest.mark.parametrize("name", OPEN)
def test_and_an_upstreams_event_is_read_or_refused_and_never_crashes(name: str) -> None:
    data, _ = CASES[name]
    try:
        found = read_event_object(data.decode("utf-8", "replace"))
    except AdapterError:
        return
    assert isinstance(found, dict)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_what_is_written_is_read_alike_by_any_reader(value: dict[str, Any]) -> None:
    for written in (dump(value).decode(), write(value)):
        assert strictly(written) == value
        assert "\n" not in written
        assert "\r" not in written


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_is_never_written(value: float) -> None:
    for writer in (dump, write):
        with pytest.raises(ValueError, match="JSON"):
            writer({"a": value})


def test_there_are_many_cases_of_each_kind() -> None:
    assert (len(TAKEN) >= 40, len(REFUSED) >= 60, len(OPEN) >= 20) == (True, True, True)
