"""The shipped vocabulary as the tokenizer files that other programs read: tokenizer.json, tokenizer_config.json.

Weir itself never reads them. They differ from `retokenizer` in one point that matters: a program that uses
them turns the text `<|im_end|>` into the control id, where Weir keeps it ordinary characters.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.vocabulary import CONTROL_TEXTS, FIRST_CONTROL_ID, TOOL_CALL, Vocabulary

# As it stands in the released files; `splitter` spells the same pattern out.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
# The released template for conversations of text: an answer at the end has its thought, if only an empty one.
CHAT_TEMPLATE = """\
{%- set ns = namespace(question=messages|length - 1) -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{%- set ns.question = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- set content = message.content if message.content is string else '' -%}
{%- set thought = message.reasoning_content if message.reasoning_content is string else '' -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' and loop.index0 > ns.question and (loop.last or thought) -%}
{%- set thought = thought.strip('\\n') -%}
{{- '<think>\\n' + thought + '\\n</think>\\n\\n' + content.lstrip('\\n') -}}
{%- else -%}
{{- content -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """The contents of tokenizer.json, as HF `tokenizers` reads it."""
    letters = byte_letters()
    ranks = vocabulary.ranks()
    words = {entry: "".join(letters[byte] for byte in entry) for entry in ranks}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number} | fields for number, fields in _added_tokens().items()],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, _BYTE_LEVEL]},
        "post_processor": _BYTE_LEVEL,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {words[entry]: rank for entry, rank in ranks.items()},
            "merges": [[words[left], words[right]] for left, right in merges(ranks)],
        },
    }


def tokenizer_config(window: int) -> dict[str, Any]:
    """The contents of tokenizer_config.json."""
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": window,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "errors": "replace",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "added_tokens_decoder": {str(number): fields for number, fields in _added_tokens().items()},
        "chat_template": CHAT_TEMPLATE,
    }


def byte_letters() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level BPE files."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(0x100 + n) for n, byte in enumerate(others)}


def merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The pairs that were merged into each entry, in the order of the entries' ranks.

    A file of ranks has no list of merges, but implies it: the last merge of an entry joins the two
    parts that its bytes come to under the ranks below its own.
    """
    for entry in sorted(ranks, key=ranks.__getitem__):
        if len(entry) > 1:
            yield _last_merge(entry, ranks)


def _last_merge(entry: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    parts = [entry[at : at + 1] for at in range(len(entry))]
    never = len(ranks)
    while len(parts) > 2:
        found = [ranks.get(parts[at] + parts[at + 1], never) for at in range(len(parts) - 1)]
        best = min(found)
        if best == never:
            raise ValueError(f"the entry {entry!r} cannot be reached by merges")
        at = found.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _added_tokens() -> dict[int, dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        number: {"content": text} | flags | {"special": number < TOOL_CALL}  # the others show in decoded text
        for number, text in enumerate(CONTROL_TEXTS, FIRST_CONTROL_ID)
    }
