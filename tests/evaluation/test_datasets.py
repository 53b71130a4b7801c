"""Reading labelled conversations: three shapes, and refusals that name file and line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.evaluation.datasets import DataError, Item, Span, read_items
from proxy.risk import RiskLevel

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there."}]


def written(folder: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one(folder: Path, row: Any) -> Item:
    [item] = read_items(written(folder, row))
    return item


def test_the_public_shape_labels_the_answer_and_counts_tokens(tmp_path: Path) -> None:
    row = {"message": CHAT, "label": "Unsafe", "unsafe_start_index": 11, "unsafe_end_index": 14, "unique_id": 7}
    item = one(tmp_path, row)
    assert (item.file, item.line, item.answer) == ("data.jsonl", 1, "Hello there.")
    assert (item.prompt_risk, item.answer_risk) == (None, RiskLevel.UNSAFE)
    assert item.token_span == Span(11, 14)


def test_our_shape_labels_the_prompt_where_no_answer_follows(tmp_path: Path) -> None:
    item = one(tmp_path, {"messages": CHAT[:1], "label": "controversial"})
    assert (item.prompt_risk, item.answer_risk) == (RiskLevel.CONTROVERSIAL, None)
    assert (item.has_answer, item.answer) == (False, "")


def test_pairs_label_both_sides_and_count_characters(tmp_path: Path) -> None:
    row = {
        "prompt": "Hi",
        "response": "Hello there.",
        "prompt_risk": "Safe",
        "response_risk": "Unsafe",
        "spans": [6, 12],
    }
    item = one(tmp_path, row)
    assert (item.prompt_risk, item.answer_risk) == (RiskLevel.SAFE, RiskLevel.UNSAFE)
    assert item.character_span == Span(6, 11)
    assert one(tmp_path, row | {"spans": [[6, 12], [0, 3]]}).character_span == Span(6, 11)


def test_no_label_is_not_safe(tmp_path: Path) -> None:
    item = one(tmp_path, {"prompt": "Hi", "response": "", "prompt_risk": "Safe", "response_risk": None})
    assert item.answer_risk is None
    assert one(tmp_path, {"prompt": "Hi", "response": None, "prompt_risk": "Safe"}).has_answer is False


def test_an_empty_answer_with_a_label_counts(tmp_path: Path) -> None:
    item = one(tmp_path, {"prompt": "Hi", "response": "", "response_risk": "Unsafe"})
    assert (item.has_answer, item.answer, item.answer_risk) == (True, "", RiskLevel.UNSAFE)


def test_a_thought_is_taken_apart_as_the_template_does(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello."}
    item = one(tmp_path, {"message": [CHAT[0], answer], "label": "Safe"})
    assert item.messages[1] == {"role": "assistant", "content": "Hello.", "reasoning_content": "A greeting."}
    assert item.has_thought


def test_gzip_and_a_byte_order_mark_and_blank_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    line = json.dumps({"prompt": "a\u2028b", "prompt_risk": "Safe"}, ensure_ascii=False)
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf\n" + line.encode() + b"\r\n\n" + line.encode()))
    assert [item.line for item in read_items(path)] == [2, 4]
    assert read_items(path)[0].messages[0]["content"] == "a\u2028b"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([], "must be a JSON object"),
        ({"text": "x"}, 'has neither "messages", "message" nor "prompt"'),
        ({"messages": []}, '"messages" must be a list of at least one message'),
        ({"message": [1]}, r'"message\[0\]" must be an object'),
        ({"message": [{"role": "bot", "content": ""}]}, r'"message\[0\].role" must be one of system, '),
        ({"message": [{"role": "user", "content": None}]}, r'"message\[0\].content" must be a string'),
        ({"message": [CHAT[0] | {"reasoning_content": 1}]}, r'"message\[0\].reasoning_content" must be a string'),
        ({"message": CHAT, "label": "bad"}, '"label" must be Safe, Unsafe or Controversial, not "bad"'),
        ({"message": CHAT, "label": 1}, "not 1"),
        ({"message": CHAT, "unsafe_start_index": 4}, "must be whole numbers"),
        ({"message": CHAT, "unsafe_start_index": 4, "unsafe_end_index": 3}, "the end lies before the start"),
        ({"prompt": 3}, '"prompt" must be a string'),
        ({"prompt": "", "response": 3}, '"response" must be a string or null'),
        ({"prompt": "", "response": "ab", "spans": [0]}, r'"spans" must be \[start, end\]'),
        ({"prompt": "", "response": "ab", "spans": [0, 3]}, '"spans" must lie within the response'),
        ({"prompt": "", "response": "<think>a</think>b", "spans": [0, 3]}, "use token positions"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(tmp_path: Path, row: Any, words: str) -> None:
    good = {"prompt": "Hi", "prompt_risk": "Safe"}
    with pytest.raises(DataError, match=rf"data\.jsonl, line 2: .*{words}.*\.$"):
        read_items(written(tmp_path, good, row))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"prompt": }', r"line 1: not JSON: Expecting value \(column 12\)"),
        (b"[" * 100_000, "line 1: nested too deep"),
        (b"\n\n", "there are no lines"),
        (b'{"prompt": "x"}', "no line has a label"),
        (b'{"prompt": "\xff"}', "not UTF-8 at byte 12"),
        (gzip.compress(b"{}" * 99)[:-9], "damaged"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"data\.jsonl.*{words}"):
        read_items(path)


def test_half_a_character_is_replaced_by_one_that_has_tokens(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(r'{"prompt": "a\ud800b", "response": "\udc00", "prompt_risk": "Safe"}')
    assert [message["content"] for message in read_items(path)[0].messages] == ["a\ufffdb", "\ufffd"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read: no such file"):
        read_items(tmp_path / "none.jsonl")
