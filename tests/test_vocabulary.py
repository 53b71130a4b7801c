"""The vocabulary file is the right one, and its ids are where they should be."""

import binascii
from pathlib import Path

import pytest

from proxy import vocabulary
from proxy.vocabulary import VocabularyError


def test_the_shipped_file_loads_with_every_rank_in_its_place() -> None:
    words = vocabulary.load()
    assert len(words.ranks()) == len(words.entries) == vocabulary.FIRST_CONTROL_ID
    lines = vocabulary.VOCABULARY_FILE.read_bytes().splitlines()
    assert lines == [binascii.b2a_base64(one, newline=False) + b" %d" % rank for rank, one in enumerate(words.entries)]
    assert words is vocabulary.load()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"cannot read the vocabulary gone\.tiktoken: No such file"):
        vocabulary.load_from(tmp_path / "gone.tiktoken")


def test_a_short_file_is_refused(tmp_path: Path) -> None:
    short = tmp_path / "short.tiktoken"
    short.write_bytes(vocabulary.VOCABULARY_FILE.read_bytes()[:-1])
    with pytest.raises(VocabularyError, match="2561217 bytes, expected 2561218"):
        vocabulary.load_from(short)


def test_a_file_with_one_changed_byte_is_refused(tmp_path: Path) -> None:
    data = bytearray(vocabulary.VOCABULARY_FILE.read_bytes())
    data[1000] ^= 1
    changed = tmp_path / "changed.tiktoken"
    changed.write_bytes(data)
    with pytest.raises(VocabularyError, match="has sha256"):
        vocabulary.load_from(changed)


def test_the_licence_note_names_the_file_by_its_hash() -> None:
    note = vocabulary.VOCABULARY_FILE.with_name("LICENSE-QWEN").read_text()
    assert vocabulary.VOCABULARY_SHA256 in note
    assert "Apache License" in note


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ENDOFTEXT", "<|endoftext|>"),
        ("IM_START", "<|im_start|>"),
        ("IM_END", "<|im_end|>"),
        ("TOOL_CALL", "<tool_call>"),
        ("TOOL_CALL_END", "</tool_call>"),
        ("TOOL_RESPONSE", "<tool_response>"),
        ("TOOL_RESPONSE_END", "</tool_response>"),
        ("THINK", "<think>"),
        ("THINK_END", "</think>"),
    ],
)
def test_a_named_control_id_has_its_text(name: str, text: str) -> None:
    token_id = getattr(vocabulary, name)
    assert vocabulary.CONTROL_TEXTS[token_id - vocabulary.FIRST_CONTROL_ID] == text
    assert vocabulary.decode([token_id]) == text


def test_there_are_26_control_ids() -> None:
    assert len(vocabulary.CONTROL_TEXTS) == len(set(vocabulary.CONTROL_TEXTS)) == 26
    assert vocabulary.THINK_END == vocabulary.FIRST_CONTROL_ID + 25


def test_one_piece_is_encoded_by_merging_and_not_by_looking_for_control_ids() -> None:
    encode_piece = vocabulary.load().encode_piece
    assert encode_piece(b" world") == [1879]
    assert encode_piece(b"<|im_end|>") == [27, 91, 318, 6213, 91, 29]


def test_decoding_shows_broken_characters_instead_of_failing() -> None:
    first_byte = vocabulary.load().entries.index(b"\xf0")
    assert vocabulary.decode_bytes([first_byte]) == b"\xf0"
    assert vocabulary.decode([first_byte, vocabulary.IM_END]) == "\ufffd<|im_end|>"
