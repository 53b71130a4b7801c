"""Text and conversations -> ids, as the proxy builds them, with tiktoken's own splitter for speed."""

import base64
from functools import lru_cache
from pathlib import Path

import tiktoken

RANKS = 151_643  # ids below are text, from here on control tokens
TOKENS = 151_669  # with the control tokens
VOCABULARY = Path(__file__).parent.parent / "proxy" / "vocabulary" / "qwen.tiktoken"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
IM_START, IM_END = 151_644, 151_645
THINK, THINK_END = 151_667, 151_668
NEWLINE, TWO_NEWLINES, ASSISTANT = 198, 271, 77_091
# What the template writes before an answer without reasoning.
ANSWER_FRAME = [IM_START, ASSISTANT, NEWLINE, THINK, TWO_NEWLINES, THINK_END, TWO_NEWLINES]


@lru_cache(maxsize=1)
def ranks() -> dict[bytes, int]:
    lines = VOCABULARY.read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}


@lru_cache(maxsize=1)
def _encoding() -> tiktoken.Encoding:
    return tiktoken.Encoding(name="qwen", pat_str=SPLIT, mergeable_ranks=ranks(), special_tokens={})


def encode(text: str) -> list[int]:
    return _encoding().encode_ordinary(text)


def decode(ids: list[int]) -> str:
    """The text of ids below RANKS."""
    return _encoding().decode(ids)


def encode_many(texts: list[str]) -> list[list[int]]:
    return _encoding().encode_ordinary_batch(texts, num_threads=2)


def turn(role: str, content: str) -> list[int]:
    """A whole turn, its closing frame included: `turn(...)[-2]` is the `<|im_end|>`."""
    return [IM_START, *encode(f"{role}\n{content}"), IM_END, NEWLINE]


@lru_cache(maxsize=1)
def byte_lengths() -> list[int]:
    """The number of bytes of each rank's text."""
    lengths = [0] * RANKS
    for token, rank in ranks().items():
        lengths[rank] = len(token)
    return lengths


def token_texts() -> list[str | None]:
    """The text of each rank; None where its bytes are no text by themselves."""
    texts: list[str | None] = [None] * RANKS
    for token, rank in ranks().items():
        try:
            texts[rank] = token.decode()
        except UnicodeDecodeError:
            continue
    return texts
