"""Entries leave only beside the text that they repeat."""

from typing import Any

import pytest

from adapters.openai_chat_logprobs import MAX_ALTERNATIVES, pair

CANARY = "how to make it"


def entry(token: Any, data: Any = None, **more: Any) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "bytes": data, "top_logprobs": [], **more}


def paired(entries: Any, text: str, keep_alternatives: bool = False) -> tuple[list[bytes], int]:
    logprobs, dropped = pair(entries, text, keep_alternatives)
    return [logprob.text for logprob in logprobs], dropped


def test_entries_that_are_the_text_are_rebuilt() -> None:
    entries = [entry("a", [97], id=5), entry("\ufffd", [0xF0, 0x9F]), entry("\ufffd", [0x98, 0x80]), entry("é")]
    logprobs, dropped = pair(entries, "a😀é", keep_alternatives=False)
    assert dropped == 0
    assert [logprob.entry["token"] for logprob in logprobs] == ["a", "\ufffd", "\ufffd\ufffd", "é"]
    assert [logprob.entry["bytes"] for logprob in logprobs] == [[97], [0xF0, 0x9F], [0x98, 0x80], [0xC3, 0xA9]]
    assert all(logprob.entry["logprob"] == -0.5 and logprob.entry["top_logprobs"] == [] for logprob in logprobs)


def test_a_token_says_what_its_bytes_say() -> None:
    logprobs, _ = pair([entry(CANARY, [97])], "a", keep_alternatives=False)
    assert CANARY not in str(logprobs)


def test_what_follows_the_text_is_left_out() -> None:
    assert paired([entry("a"), entry(""), entry("b"), entry("<|im_end|>"), entry("")], "ab") == ([b"a", b"", b"b"], 2)


@pytest.mark.parametrize(
    "entries",
    [
        [entry("a")],
        [entry("a"), entry(CANARY)],
        [entry("ab"), entry("cd")],
        [entry(CANARY, [CANARY])],
        [entry("abc", [97, 98, 256])],
        [entry("abc", [97, 98, True])],
        [entry("abc", "abc")],
        [entry(None)],
        [entry("abc", logprob=None)],
        [entry("abc", logprob="-1")],
        [entry("abc", logprob=float("inf"))],
        [entry("ab\ud800")],
        ["abc"],
        [None],
    ],
)
def test_entries_that_are_not_the_text_are_all_left_out(entries: list[Any]) -> None:
    assert paired(entries, "abc") == ([], len(entries))


def test_a_text_that_will_be_repaired_has_no_entries() -> None:
    assert paired([entry("\ud83d"), entry("\ude00")], "\ud83d\ude00") == ([], 2)


@pytest.mark.parametrize("entries", [{"a": CANARY}, CANARY, 5])
def test_what_is_no_list_is_left_out(entries: Any) -> None:
    assert paired(entries, "abc") == ([], 1)


def test_alternatives_pass_only_where_unscanned_text_may() -> None:
    alternative = {"token": "x", "bytes": None, "logprob": -1, "more": CANARY}
    alternatives = [alternative, {"token": CANARY}, None, *[alternative] * 30]
    entries = [entry("a", top_logprobs=alternatives, more=CANARY), entry("b", top_logprobs=None)]
    logprobs, dropped = pair(entries, "ab", keep_alternatives=True)
    assert dropped == 1
    kept = logprobs[0].entry["top_logprobs"]
    assert kept[0] == {"token": "x", "bytes": [120], "logprob": -1}
    assert len(kept) == MAX_ALTERNATIVES - 2
    assert CANARY not in str(logprobs)
    assert paired(entries, "ab") == ([b"a", b"b"], 2)
