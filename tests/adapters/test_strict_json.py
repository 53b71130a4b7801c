"""Strict reading, and errors that quote nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterError
from adapters.strict_json import read_object, write, write_checked


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "canary",
        "[1]",
        '"canary"',
        "1",
        "null",
        "true",
        "{",
        '{"a":1}canary',
        '{"a":NaN}',
        '{"a":-Infinity}',
        "{'a':1}",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a":' + "9" * 5000 + "}",
        "\ufeff{}",
        '{"a":"\n"}',
        "[DONE]canary",
    ],
)
def test_what_is_not_an_object_is_refused_without_a_quote(text: str) -> None:
    with pytest.raises(AdapterError) as caught:
        read_object(text)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 60


def test_objects_are_read() -> None:
    assert read_object(' {"a": [1, 2.5, null], "a": {}} ') == {"a": {}}


def test_writing_is_compact_and_keeps_the_letters() -> None:
    value = {"a": ["ü\u2028😀\x85\n\r\x00", 1.5, None, True]}
    assert write(value) == '{"a":["ü\u2028😀\x85\\n\\r\\u0000",1.5,null,true]}'
    assert json.loads(write(value)) == value


def test_what_is_not_json_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        write({"a": float("inf")})


SCRAPS = [
    '{"a":',
    "}",
    "[",
    "]",
    ",",
    '"x"',
    '"\\ud800"',
    '"\\ud83d\\ude00"',
    "1e999",
    "-0",
    "1e-400",
    "9" * 25,
    "null",
    " ",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.lists(st.sampled_from(SCRAPS) | st.text(max_size=3), max_size=12).map("".join))
def test_both_readers_read_alike(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=float)
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert repr(read_object(text)) == repr(expected)
    else:
        with pytest.raises(AdapterError):
            read_object(text)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_both_writers_say_the_same(value: dict[str, object]) -> None:
    assert read_object(write(value)) == value
    try:
        assert json.loads(write_checked(value)) == value
    except UnicodeEncodeError:
        assert "\\ud" in json.dumps(value)
