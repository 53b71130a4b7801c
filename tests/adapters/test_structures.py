"""What is judged whole, what is data, and what is a signature."""

import base64
import json
from typing import Any

import pytest

from adapters.base import Key, Kind
from adapters.errors import AdapterError
from adapters.structures import is_data, is_signature, readable, value_of, whole

IMAGE = base64.b64encode(bytes(range(256))).decode()
KEY = Key(0, "blocks.0")


@pytest.mark.parametrize("text", [IMAGE, "x" * 64, f"data:image/png;base64,{IMAGE}", "a-_" * 30 + "=="])
def test_data_is_no_text(text: str) -> None:
    assert is_data(text)
    assert readable({"a": text, "b": ["c", text], text: 1}) == ({"b": ["c"]}, 3)


@pytest.mark.parametrize(
    "value", ["", "x" * 63, "a sentence of words " * 9, "https://example.test/" + "x" * 99, 5, None]
)
def test_words_numbers_and_short_names_stay(value: Any) -> None:
    assert not is_data(value)
    assert readable({"a": [value]}) == ({"a": [value]}, 0)


def test_a_whole_value_is_delivered_as_it_is_judged() -> None:
    value = {"title": 'a "b" \u2028', "n": [1, None, {"deep": True}]}
    delta, dropped = whole(KEY, value, 3, keep_data=False)
    assert (delta.kind, delta.source, dropped) == (Kind.OBJECT, 3, 0)
    assert json.loads(delta.text) == value == value_of(delta)
    assert whole(KEY, {"a": IMAGE}, 3, keep_data=True)[0].text == json.dumps({"a": IMAGE}, separators=(",", ":"))
    assert whole(KEY, {"a": IMAGE}, 3, keep_data=False)[1] == 1
    with pytest.raises(AdapterError):
        whole(KEY, {"a": float("inf")}, 3, keep_data=True)


SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds=="


def test_a_signature_reads_like_none() -> None:
    assert is_signature(SIGNATURE)
    assert is_signature(SIGNATURE.replace("k", "-").replace("z", "_"))
    assert is_signature(base64.b64encode(bytes(range(120, 256))).decode())


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "",
        "short1A",
        "wordsWithoutAnySpaceAreStillWordsIfThereIsNoDigit",
        "words with spaces 1A " * 3,
        base64.b64encode(b"Any text at all, only in other letters, 1.").decode(),
        base64.urlsafe_b64encode("né, another text in other letters".encode()).decode(),
        SIGNATURE + "\n",
        SIGNATURE + "!",
    ],
)
def test_words_are_no_signature(value: Any) -> None:
    assert not is_signature(value)
