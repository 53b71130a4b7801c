"""Labelled conversations from JSON lines (.jsonl, .jsonl.gz), in the three shapes that are about.

| shape | conversation | labels | where it turns unsafe |
|---|---|---|---|
| ours | `messages` | `label`: of the answer, or of the prompt where no answer follows | see below |
| Qwen3GuardTest | `message` | the same | `unsafe_start_index`, `unsafe_end_index`: tokens of the chat template |
| pairs | `prompt`, `response` | `prompt_risk`, `response_risk` | `spans`: characters of the response |

Ours may have either. A missing or null label means "not labelled", never "Safe". A thought inside an answer
(`<think>...</think>`) is taken apart as the chat template does it.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.risk import RiskLevel
from proxy.surrogates import repair

GZIP_MAGIC = b"\x1f\x8b"
LEVELS = {str(level).lower(): level for level in RiskLevel}
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class DataError(Exception):
    """A file that cannot be evaluated: which, where in it, and why."""


class _Fault(ValueError):
    """What is wrong with one line."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where an answer first becomes unsafe, from `start` to `end`, both in it."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled conversation; an answer is its last message, from the assistant."""

    file: str
    line: int
    messages: tuple[Mapping[str, Any], ...]
    prompt_risk: RiskLevel | None = None
    answer_risk: RiskLevel | None = None
    token_span: Span | None = None  # positions in the whole chat template
    character_span: Span | None = None  # of the answer's text

    @property
    def has_answer(self) -> bool:
        return bool(self.messages[-1]["role"] == "assistant")

    @property
    def answer(self) -> str:
        return str(self.messages[-1]["content"]) if self.has_answer else ""

    @property
    def has_thought(self) -> bool:
        return self.has_answer and bool(self.messages[-1].get("reasoning_content"))


def read_items(path: Path) -> list[Item]:
    """Every line of a file. Raises DataError."""
    items = list(_read_items(path))
    if not items:
        raise DataError(f"{path}: there are no lines in it.")
    if all(item.prompt_risk is None and item.answer_risk is None for item in items):
        raise DataError(f"{path}: no line has a label, so there is nothing to compare with.")
    return items


def _read_items(path: Path) -> Iterator[Item]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            yield read_item(json.loads(line), path.name, number)
        except json.JSONDecodeError as exc:
            raise DataError(f"{path}, line {number}: not JSON: {exc.msg} (column {exc.colno}).") from exc
        except RecursionError as exc:
            raise DataError(f"{path}, line {number}: nested too deep.") from exc
        except _Fault as exc:
            raise DataError(f"{path}, line {number}: {exc}.") from exc


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
        if data.startswith(GZIP_MAGIC):
            data = gzip.decompress(data)
        # Not splitlines: a line separator of Unicode may stand inside a JSON string.
        return data.decode("utf-8-sig").split("\n")
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {(exc.strerror or str(exc)).lower()}.") from exc
    except (EOFError, zlib.error) as exc:
        raise DataError(f"{path}: the gzip file is damaged: {exc}.") from exc
    except UnicodeDecodeError as exc:
        raise DataError(f"{path}: not UTF-8 at byte {exc.start}.") from exc


def read_item(row: object, file: str, line: int) -> Item:
    """One line's object. Raises ValueError with what is wrong."""
    if not isinstance(row, dict):
        raise _Fault("must be a JSON object")
    if "messages" in row or "message" in row:
        return _read_conversation(row, file, line)
    if "prompt" in row:
        return _read_pair(row, file, line)
    raise _Fault('has neither "messages", "message" nor "prompt"')


def _read_conversation(row: Mapping[str, Any], file: str, line: int) -> Item:
    key = "messages" if "messages" in row else "message"
    found = row[key]
    if not isinstance(found, list) or not found:
        raise _Fault(f'"{key}" must be a list of at least one message')
    messages = tuple(_message(message, f"{key}[{index}]") for index, message in enumerate(found))
    risk = _level(row, "label")
    has_answer = messages[-1]["role"] == "assistant"
    return Item(
        file,
        line,
        messages,
        prompt_risk=_level(row, "prompt_risk") if has_answer else risk,
        answer_risk=risk if has_answer else None,
        token_span=_token_span(row) if has_answer else None,
        character_span=_character_span(row, messages[-1]) if has_answer else None,
    )


def _read_pair(row: Mapping[str, Any], file: str, line: int) -> Item:
    if not isinstance(row["prompt"], str):
        raise _Fault('"prompt" must be a string')
    response = row.get("response")
    if response is not None and not isinstance(response, str):
        raise _Fault('"response" must be a string or null')
    messages: list[Mapping[str, Any]] = [{"role": "user", "content": repair(row["prompt"])}]
    if response is not None:
        messages.append(_taken_apart({"role": "assistant", "content": repair(response)}))
    return Item(
        file,
        line,
        tuple(messages),
        prompt_risk=_level(row, "prompt_risk"),
        answer_risk=_level(row, "response_risk") if response is not None else None,
        character_span=_character_span(row, messages[-1]) if response is not None else None,
    )


def _message(message: object, where: str) -> Mapping[str, Any]:
    if not isinstance(message, dict):
        raise _Fault(f'"{where}" must be an object')
    if message.get("role") not in ROLES:
        raise _Fault(f'"{where}.role" must be one of {", ".join(ROLES)}')
    if not isinstance(message.get("content"), str):
        raise _Fault(f'"{where}.content" must be a string')
    if not isinstance(message.get("reasoning_content", ""), str | None):
        raise _Fault(f'"{where}.reasoning_content" must be a string')
    keys = [key for key in ("role", "content", "reasoning_content") if message.get(key) is not None]
    kept = {key: repair(message[key]) for key in keys}  # half a character has no tokens
    return _taken_apart(kept) if kept["role"] == "assistant" else kept


def _taken_apart(message: dict[str, Any]) -> Mapping[str, Any]:
    """The thought and the rest of an answer, in the way of the released chat template."""
    content: str = message["content"]
    if "reasoning_content" in message or "</think>" not in content:
        return message
    thought, *_, rest = content.split("</think>")
    thought = thought.rstrip("\n").rpartition("<think>")[2].lstrip("\n")
    return message | {"reasoning_content": thought, "content": rest.lstrip("\n")}


def _level(row: Mapping[str, Any], key: str) -> RiskLevel | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or value.lower() not in LEVELS:
        raise _Fault(f'"{key}" must be Safe, Unsafe or Controversial, not {json.dumps(value)[:40]}')
    return LEVELS[value.lower()]


def _token_span(row: Mapping[str, Any]) -> Span | None:
    start, end = row.get("unsafe_start_index"), row.get("unsafe_end_index")
    if start is None and end is None:
        return None
    return _span(start, end, "unsafe_start_index and unsafe_end_index")


def _character_span(row: Mapping[str, Any], answer: Mapping[str, Any]) -> Span | None:
    """`spans` is [start, end) or a list of those; the first one is where the answer turns."""
    spans = row.get("spans")
    if not spans:
        return None
    first = spans[0] if isinstance(spans, list) and isinstance(spans[0], list) else spans
    if not isinstance(first, list) or len(first) != 2:
        raise _Fault('"spans" must be [start, end], or a list of those')
    if answer.get("reasoning_content"):
        raise _Fault('"spans" cannot be placed in an answer with a thought; use token positions')
    span = _span(first[0], first[1], "spans")
    if not span.start < span.end <= len(answer["content"]):
        raise _Fault('"spans" must lie within the response, and not be empty')
    return Span(span.start, span.end - 1)


def _span(start: object, end: object, name: str) -> Span:
    for value in (start, end):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise _Fault(f"{name} must be whole numbers from 0 on")
    assert isinstance(start, int)
    assert isinstance(end, int)
    if end < start:
        raise _Fault(f"{name}: the end lies before the start")
    return Span(start, end)
