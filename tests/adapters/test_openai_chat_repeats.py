"""Of an event that repeats another but for its text, only the text is read; and it is read as the whole would be."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.openai_chat_plain import decode_plain
from adapters.openai_chat_repeats import MAX_LESSONS, Repeats


def event(text: str, *, is_ascii: bool = True, **more: Any) -> str:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return json.dumps({"id": "a", "model": '"content":"m"', "choices": [choice], **more}, ensure_ascii=is_ascii)


def learned(data: str) -> Repeats:
    repeats = Repeats()
    assert repeats.learn(data)
    return repeats


@given(st.text(), st.text(), st.booleans())
def test_the_text_is_that_of_the_whole(first: str, second: str, is_ascii: bool) -> None:
    data = event(second, is_ascii=is_ascii)
    assert learned(event(first)).read(data) == second == decode_plain(data).choices[0].delta.content


TRICKY = st.text(alphabet='"\\:{},[] contebfusai', max_size=30)


@given(TRICKY, TRICKY, TRICKY)
def test_beside_noise_it_is_too(first: str, second: str, noise: str) -> None:
    data = event(second, obfuscation=noise, usage=None)
    assert learned(event(first, obfuscation="x", usage=None)).read(data) == second


@pytest.mark.parametrize("noise", ["null", "5", '"a', '"a", "x": "b"', '"\\ud83d"', ""])
def test_noise_that_is_no_text_is_left_to_others(noise: str) -> None:
    repeats = learned(event("hi", obfuscation="x"))
    assert repeats.read(event("hi", obfuscation="NOISE")) == "hi"
    assert repeats.read(event("hi", obfuscation="NOISE").replace('"NOISE"', noise)) is None
    assert repeats.read(event("hi")) is None


@pytest.mark.parametrize(
    "data",
    [
        event("hi", created=1),
        event("hi").replace('"hi"', "null"),
        event("hi").replace('"hi"', '"h"i"'),
        event("hi").replace('"hi"', '"hi", "refusal": "no"'),
        event("hi").replace('"hi"', '"hi\n"'),
        event("hi").replace('"hi"', '"\\ud83d"'),
        event("hi").replace('"hi"', '"'),
        event("hi").replace('"hi"', ""),
        event("hi")[:-1],
        "",
    ],
)
def test_what_repeats_nothing_is_left_to_others(data: str) -> None:
    assert learned(event("hi")).read(data) is None
    assert Repeats().read(data) is None


@given(TRICKY, TRICKY)
def test_a_word_that_looks_like_the_place_misleads_nobody(first: str, second: str) -> None:
    results = {first: [{"content": first}]}
    choice = {"content_filter_results": results, "index": 0, "delta": {"content": first}}
    repeats = Repeats()
    repeats.learn(json.dumps({"provider": first, "choices": [choice]}))
    choice["delta"] = {"content": second}
    assert repeats.read(json.dumps({"provider": first, "choices": [choice]})) in (None, second)


def test_of_two_texts_in_one_delta_none_is_learned() -> None:
    assert not Repeats().learn('{"choices": [{"delta": {"content": "a", "content": "b"}}]}')


def test_what_is_never_alike_is_not_learned_for_ever() -> None:
    repeats = Repeats()
    assert [repeats.learn(event("a", id=str(number))) for number in range(MAX_LESSONS + 1)] == [
        *[True] * MAX_LESSONS,
        False,
    ]
    assert repeats.read(event("b", id=str(MAX_LESSONS - 1))) == "b"


def test_what_is_read_cannot_be_more_than_a_text() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_plain(event("a").replace('"a"', "5"))
    assert learned(event("a")).read(event("a").replace('"a"', "5")) is None
