"""/v1/chat/completions as one body: the same fields as the stream, collected and written at the end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.azure_notation import azure_block, azure_finish, azure_prompt
from adapters.base import (
    Assessment,
    Block,
    Delta,
    Event,
    Failure,
    Finish,
    Note,
    Opaque,
    Options,
    Piece,
    Report,
    Usage,
)
from adapters.notations import moderation, weir_block, weir_finish, weir_note
from adapters.openai_chat import failure_event, usage_fields
from adapters.openai_chat_calls import TOOL_TEXTS, ToolCall
from adapters.openai_chat_reader import BODY, ChatReader
from adapters.strict_json import write

# Channels that are not a field of their own name.
NESTED = frozenset({"audio", "delta", "function_call", "reasoning_details", "tool_calls"})


@dataclass(slots=True)
class BodyChoice:
    """What was released of a choice, and how it ended."""

    blanks: Mapping[str, Any] = field(default_factory=dict)  # the role, and the fields that are null or empty
    texts: dict[str, list[str]] = field(default_factory=dict)  # by channel
    extras: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by channel
    calls: dict[int, ToolCall] = field(default_factory=dict)
    logprobs: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)  # by channel
    spans: list[dict[str, Any]] = field(default_factory=list)
    audio: Mapping[str, Any] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)  # finish_reason, native_finish_reason, weir
    answer: Assessment | None = None
    is_cut: bool = False

    def text(self, channel: str) -> str:
        return "".join(self.texts.get(channel, ()))


class ChatBody:
    """One response without `stream`. Nothing is written before `encode_end`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._reader = self._open_reader(options)
        self._choices: dict[int, BodyChoice] = {}
        self._counts: dict[str, Any] = {}
        self._prompt: Assessment | None = None
        self._is_estimated = False
        self.dropped = 0

    def _open_reader(self, options: Options) -> ChatReader:
        return ChatReader(options, BODY)

    def decode(self, event: Event) -> list[Piece]:
        pieces = self._reader.read(event)
        self.dropped = self._reader.dropped
        return pieces

    def encode(self, piece: Delta | Opaque, note: Note | None) -> list[Event]:
        if isinstance(piece, Delta):
            self._collect(piece, note)
        elif piece.choice is None:
            self._counts = {**piece.payload, **self._counts}
        elif "audio" in piece.payload and "role" not in piece.payload:
            self._choice(piece.choice).audio = piece.payload["audio"]
        else:
            self._choice(piece.choice).blanks = piece.payload
        return []

    def encode_finish(self, finish: Finish, report: Report) -> list[Event]:
        choice = self._choice(finish.choice)
        choice.end["finish_reason"] = finish.reason
        if native := self._reader.native_reasons.get(finish.choice):
            choice.end["native_finish_reason"] = native
        if self._options.notations.weir:
            choice.end["weir"] = weir_finish(report)
        if self._options.notations.azure:
            choice.end |= azure_finish(report)
        self._assess(choice, report)
        return []

    def encode_block(self, block: Block, report: Report) -> list[Event]:
        choice = self._choice(block.choice)
        choice.is_cut = True
        choice.end = {"finish_reason": "content_filter"}
        choice.texts.setdefault("content", []).append(block.notice)
        if self._options.notations.weir:
            choice.end["weir"] = weir_block(block)
        if self._options.notations.azure:
            choice.end |= azure_block(block, report)
        self._assess(choice, report)
        return []

    def encode_usage(self, usage: Usage) -> list[Event]:
        self._counts["usage"] = usage_fields(usage)
        self._is_estimated = True
        return []

    def encode_end(self) -> list[Event]:
        notations = self._options.notations
        body = {
            **self._reader.envelope().fields,
            "choices": [self._written(index, self._choices[index]) for index in sorted(self._choices)],
            **self._counts,
        }
        if notations.azure:
            body |= azure_prompt(Report(prompt=self._prompt))
        if notations.openai:
            answers = [choice.answer for choice in self._choices.values()]
            body["moderation"] = moderation(self._options.guard_model, self._prompt, answers)
        if self._is_estimated:  # whatever annotations are wanted: a guess must never pass for a count
            body["weir"] = {"usage": "estimated"}
        return [Event(write(body))]

    def encode_failure(self, failure: Failure) -> list[Event]:
        return [failure_event(failure)]

    def _written(self, index: int, choice: BodyChoice) -> dict[str, Any]:
        written: dict[str, Any] = {
            "index": index,
            "message": _message(choice),
            "logprobs": {"content": None, "refusal": None, **choice.logprobs} if choice.logprobs else None,
            "finish_reason": None,
        }
        return written | choice.end

    def _choice(self, index: int) -> BodyChoice:
        return self._choices.setdefault(index, BodyChoice())

    def _assess(self, choice: BodyChoice, report: Report) -> None:
        choice.answer = report.answer
        self._prompt = self._prompt or report.prompt
        if choice.spans and "weir" in choice.end:
            choice.end["weir"]["spans"] = choice.spans

    def _collect(self, piece: Delta, note: Note | None) -> None:
        choice = self._choice(piece.key.choice)
        channel = piece.key.channel
        choice.texts.setdefault(channel, []).append(piece.text)
        if channel.startswith("tool_calls."):
            call = self._reader.calls.find(piece.key)
            choice.calls[call.index] = call
        if piece.extra:
            choice.extras.setdefault(channel, piece.extra)
        if piece.logprobs:
            choice.logprobs.setdefault(channel, []).extend(logprob.entry for logprob in piece.logprobs)
        if note is not None and note.category is not None:
            choice.spans.append(weir_note(note))


def _message(choice: BodyChoice) -> dict[str, Any]:
    """A cut message keeps its texts but no call: half a call must never run."""
    message: dict[str, Any] = {"role": "assistant", "content": None, **choice.blanks}
    message |= {channel: choice.text(channel) for channel in choice.texts if channel.partition(".")[0] not in NESTED}
    message |= {
        channel.partition(".")[2]: choice.text(channel) for channel in choice.texts if channel.startswith("delta.")
    }
    if details := _details(choice):
        message["reasoning_details"] = details
    if audio := _audio(choice):
        message["audio"] = audio
    if choice.is_cut:
        return message
    if any(channel.startswith("function_call.") for channel in choice.texts):
        message["function_call"] = {name: choice.text(f"function_call.{name}") for name in ("name", "arguments")}
    if calls := _calls(choice):
        message["tool_calls"] = calls
    return message


def _details(choice: BodyChoice) -> list[dict[str, Any]]:
    details = []
    for channel in choice.texts:
        if channel.startswith("reasoning_details."):
            _, index, name = channel.split(".")
            detail: dict[str, Any] = {"type": f"reasoning.{name}", "index": int(index), name: choice.text(channel)}
            details.append({**detail, **choice.extras.get(channel, {})})
    return details


def _audio(choice: BodyChoice) -> dict[str, Any] | None:
    """Clients want all four fields. The sound of a cut answer says what the transcript must not."""
    transcript = choice.text("audio.transcript")
    if not choice.audio and not transcript:
        return None
    audio = {"id": "", "expires_at": 0, "data": "", **choice.audio, "transcript": transcript}
    return audio | ({"data": ""} if choice.is_cut else {})


def _calls(choice: BodyChoice) -> list[dict[str, Any]]:
    calls = []
    for index, call in sorted(choice.calls.items()):
        names = ("name", TOOL_TEXTS[call.type][0])
        texts = {name: choice.text(f"tool_calls.{index}.{name}") for name in names}
        calls.append({**call.announce(), call.type: texts})
    return calls
