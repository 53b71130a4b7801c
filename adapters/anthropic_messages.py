"""/v1/messages: Anthropic's Messages, as a stream and as one body."""

import secrets
from collections.abc import Mapping
from typing import Any

from adapters.anthropic_messages_reader import BLANKS, CONTENT, MessagesReader
from adapters.base import Block, Delta, Event, Failure, Finish, Kind, Note, Opaque, Options, Piece, Report, Usage
from adapters.notations import moderation, weir_block, weir_finish, weir_note
from adapters.strict_json import write
from adapters.structures import value_of

REFUSAL = "refusal"
# The one of the dialect's own words that fits any of ours; typed clients know no others.
REFUSAL_CATEGORY = "general_harms"
NOTICE = -1  # the block that says the notice, as no block of the upstream's is numbered

Said = dict[str, Any]


class MessagesWriter:
    """Released pieces -> what is said, as objects. Blocks are numbered anew: some of the upstream's may be missing."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._numbers: dict[int, int] = {}  # the upstream's index of a block -> ours
        self._open: dict[int, str] = {}  # the blocks under way, by the upstream's index: their types
        self._has_begun = False
        self._ending: Said | None = None  # of a cut answer; its counts come later

    def say(self, piece: Delta | Opaque, note: Note | None) -> list[Said]:
        if isinstance(piece, Opaque):
            return self._say_opaque(piece)
        said = self._begin()
        if piece.kind is Kind.OBJECT:
            index, place = piece.source
            value = value_of(piece)
            return said + (self._start(index, value) if place == "start" else [self._delta(index, value)])
        if piece.kind is Kind.NAME:
            head = {"id": f"toolu_{secrets.token_hex(12)}", **piece.extra, "name": piece.text, "input": {}}
            return said + self._noted(self._start(piece.source, head), note)
        return said + self._noted([self._delta(piece.source, self._text(piece))], note)

    def finish(self, finish: Finish, report: Report) -> list[Said]:
        delta = {"stop_reason": finish.reason, "stop_sequence": finish.source["stop_sequence"]}
        said = self._end(delta, {"output_tokens": 0, **finish.source["usage"]})
        more = {"weir": weir_finish(report)} if self._options.notations.weir else {}
        return [*self._begin(), *self._stop_all(), said | more | self._moderation(report)]

    def block(self, block: Block, report: Report) -> list[Said]:
        """The notice goes on in the text under way, or is a text of its own."""
        said = self._begin()
        place = next((index for index, kind in self._open.items() if kind == "text"), NOTICE)
        if place == NOTICE:
            said += self._stop_all()
            if block.notice:
                said += self._start(NOTICE, BLANKS["text"])
        if block.notice:
            said.append(self._delta(place, {"type": "text_delta", "text": block.notice}))
        said += self._stop_all()
        why = {"type": REFUSAL, "category": REFUSAL_CATEGORY, "explanation": block.notice.strip() or None}
        delta = {"stop_reason": REFUSAL, "stop_sequence": None, "stop_details": why}
        self._ending = self._end(delta, {"output_tokens": 0})
        self._ending |= {"weir": weir_block(block)} if self._options.notations.weir else {}
        self._ending |= self._moderation(report)
        return said

    def count(self, usage: Usage) -> None:
        if self._ending is not None:
            # Marked whatever annotations are wanted: a guess must never pass for a count.
            self._ending["usage"] = {"output_tokens": usage.completion_tokens}
            self._ending["weir"] = {**self._ending.get("weir", {}), "usage": "estimated"}

    def end(self) -> list[Said]:
        ending = [self._ending] if self._ending is not None else []
        return [*self._begin(), *self._stop_all(), *ending, {"type": "message_stop"}]

    def _say_opaque(self, piece: Opaque) -> list[Said]:
        payload, index = piece.payload, piece.source
        if "message" in payload:
            return self._begin(payload["message"])
        said = self._begin()
        if "start" in payload:
            return said + self._start(index, payload["start"])
        if "signature" in payload:
            return [*said, self._delta(index, {"type": "signature_delta", "signature": payload["signature"]})]
        return said + self._stop(index)

    def _begin(self, head: Mapping[str, Any] | None = None) -> list[Said]:
        if self._has_begun:
            return []
        self._has_begun = True
        head = {"id": f"msg_{secrets.token_hex(12)}", "model": self._options.model, "usage": {}, **(head or {})}
        message = {
            "id": head["id"],
            "type": "message",
            "role": "assistant",
            "model": head["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0, **head["usage"]},
        }
        return [{"type": "message_start", "message": message}]

    def _start(self, index: int, block: Said) -> list[Said]:
        number = self._numbers[index] = len(self._numbers)
        self._open[index] = block["type"]
        return [{"type": "content_block_start", "index": number, "content_block": block}]

    def _stop(self, index: int) -> list[Said]:
        if self._open.pop(index, None) is None:
            return []
        return [{"type": "content_block_stop", "index": self._numbers[index]}]

    def _stop_all(self) -> list[Said]:
        return [said for index in list(self._open) for said in self._stop(index)]

    def _delta(self, index: int, delta: Said) -> Said:
        return {"type": "content_block_delta", "index": self._numbers[index], "delta": delta}

    def _text(self, piece: Delta) -> Said:
        if piece.kind is Kind.ARGUMENTS:
            return {"type": "input_json_delta", "partial_json": piece.text}
        name = "text" if piece.key.channel == CONTENT else "thinking"
        return {"type": f"{name}_delta", name: piece.text}

    def _noted(self, said: list[Said], note: Note | None) -> list[Said]:
        if note is not None and self._options.notations.weir:
            said[-1]["weir"] = weir_note(note)
        return said

    def _end(self, delta: Said, usage: Said) -> Said:
        return {"type": "message_delta", "delta": delta, "usage": usage}

    def _moderation(self, report: Report) -> Said:
        if not self._options.notations.openai:
            return {}
        return {"moderation": moderation(self._options.guard_model, report.prompt, [report.answer])}


class MessagesStream:
    """One streamed response."""

    def __init__(self, options: Options) -> None:
        self._reader = MessagesReader(options)
        self._writer = MessagesWriter(options)

    @property
    def dropped(self) -> int:
        return self._reader.dropped

    def decode(self, event: Event) -> list[Piece]:
        return self._reader.read(event)

    def encode(self, piece: Delta | Opaque, note: Note | None) -> list[Event]:
        return _events(self._writer.say(piece, note))

    def encode_finish(self, finish: Finish, report: Report) -> list[Event]:
        return _events(self._writer.finish(finish, report))

    def encode_block(self, block: Block, report: Report) -> list[Event]:
        return _events(self._writer.block(block, report))

    def encode_usage(self, usage: Usage) -> list[Event]:
        self._writer.count(usage)
        return []

    def encode_end(self) -> list[Event]:
        return _events(self._writer.end())

    def encode_failure(self, failure: Failure) -> list[Event]:
        return [failure_event(failure)]


def failure_event(failure: Failure) -> Event:
    told = {"type": failure.type, "message": failure.message, "code": failure.code}
    return Event(write({"type": "error", "error": {name: value for name, value in told.items() if value}}), "error")


def _events(said: list[Said]) -> list[Event]:
    return [Event(write(one), one["type"]) for one in said]
