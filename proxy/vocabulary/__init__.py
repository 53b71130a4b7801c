"""The Qwen3 vocabulary: ranks, control ids, and the byte-pair encoding of one piece of text.

Nothing here ever turns text into a control id: those are placed by code, by name.
"""

import binascii
import functools
import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import tiktoken

VOCABULARY_FILE = Path(__file__).with_name("qwen.tiktoken")
VOCABULARY_BYTES = 2_561_218
VOCABULARY_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"

# The added tokens, in the order of their ids. Ordinary text is always below the first of them.
FIRST_CONTROL_ID = 151643
CONTROL_TEXTS: tuple[str, ...] = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
ENDOFTEXT = 151643
IM_START = 151644
IM_END = 151645
TOOL_CALL = 151657
TOOL_CALL_END = 151658
TOOL_RESPONSE = 151665
TOOL_RESPONSE_END = 151666
THINK = 151667
THINK_END = 151668


class VocabularyError(RuntimeError):
    """The vocabulary file is missing or is not the one this version was written for."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    entries: tuple[bytes, ...]  # by id
    encode_piece: Callable[[bytes], list[int]]  # the byte-pair encoding of one pre-token

    def ranks(self) -> dict[bytes, int]:
        """The id of each entry: 10 MB, made anew."""
        return {entry: rank for rank, entry in enumerate(self.entries)}


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise VocabularyError(f"cannot read the vocabulary {path.name}: {exc.strerror}") from exc
    if len(data) != VOCABULARY_BYTES:
        raise VocabularyError(f"{path.name} has {len(data)} bytes, expected {VOCABULARY_BYTES}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != VOCABULARY_SHA256:
        raise VocabularyError(f"{path.name} has sha256 {digest}, expected {VOCABULARY_SHA256}")
    return data


def load_from(path: Path) -> Vocabulary:
    # The file is known by its hash: a line is an entry and its rank, and the ranks count from 0.
    entries = tuple(binascii.a2b_base64(line.partition(b" ")[0]) for line in io.BytesIO(_read(path)))
    ranks = {entry: rank for rank, entry in enumerate(entries)}
    # The pattern never runs: the text is split by our own tables, because tiktoken's regex engine
    # panics on a million blanks and knows other Unicode tables than the reference.
    encoding = tiktoken.Encoding("qwen3", pat_str=".", mergeable_ranks=ranks, special_tokens={})
    # Private, but the one call that encodes a piece without splitting it; tests pin what it does.
    return Vocabulary(entries, encoding._core_bpe.encode_single_piece)


@functools.cache
def load() -> Vocabulary:
    return load_from(VOCABULARY_FILE)


def decode_bytes(ids: Iterable[int]) -> bytes:
    """The bytes behind ids, control ids by their names; for display only, never to be sent on."""
    entries = load().entries
    return b"".join(
        entries[token] if token < FIRST_CONTROL_ID else CONTROL_TEXTS[token - FIRST_CONTROL_ID].encode()
        for token in ids
    )


def decode(ids: Iterable[int]) -> str:
    return decode_bytes(ids).decode("utf-8", "replace")
