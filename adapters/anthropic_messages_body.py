"""/v1/messages as one body: what a client makes of the stream that would say the same."""

import json
from collections.abc import Iterable
from typing import Any

from adapters.anthropic_messages import REFUSAL, MessagesWriter, Said, failure_event
from adapters.anthropic_messages_reader import MessagesReader
from adapters.base import Block, Delta, Event, Failure, Finish, Note, Opaque, Options, Piece, Report, Usage
from adapters.strict_json import write

APPENDED = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class MessagesBody:
    """One response without `stream`. Nothing is written before `encode_end`."""

    def __init__(self, options: Options) -> None:
        self._reader = MessagesReader(options)
        self._writer = MessagesWriter(options)
        self._message: Said = {}
        self._inputs: dict[int, str] = {}  # by block: JSON so far
        self._spans: list[Any] = []

    @property
    def dropped(self) -> int:
        return self._reader.dropped

    def decode(self, event: Event) -> list[Piece]:
        return self._reader.read_body(event)

    def encode(self, piece: Delta | Opaque, note: Note | None) -> list[Event]:
        return self._collect(self._writer.say(piece, note))

    def encode_finish(self, finish: Finish, report: Report) -> list[Event]:
        return self._collect(self._writer.finish(finish, report))

    def encode_block(self, block: Block, report: Report) -> list[Event]:
        return self._collect(self._writer.block(block, report))

    def encode_usage(self, usage: Usage) -> list[Event]:
        self._writer.count(usage)
        return []

    def encode_end(self) -> list[Event]:
        self._collect(self._writer.end())
        return [Event(write(self._message))]

    def encode_failure(self, failure: Failure) -> list[Event]:
        return [failure_event(failure)]

    def _collect(self, said: Iterable[Said]) -> list[Event]:
        for one in said:
            kind = one["type"]
            if kind == "message_start":
                self._message = one["message"]
            elif kind == "content_block_start":
                self._message["content"].append(dict(one["content_block"]))
            elif kind == "content_block_delta":
                self._append(one)
            elif kind == "message_delta":
                self._close(one)
        return []

    def _append(self, said: Said) -> None:
        block, delta = self._message["content"][said["index"]], said["delta"]
        if said.get("weir", {}).get("category"):
            self._spans.append(said["weir"])
        if name := APPENDED.get(delta["type"]):
            block[name] += delta[name]
        elif delta["type"] == "input_json_delta":
            self._inputs[said["index"]] = self._inputs.get(said["index"], "") + delta["partial_json"]
        elif delta["type"] == "citations_delta":
            block.setdefault("citations", []).append(delta["citation"])

    def _close(self, said: Said) -> None:
        """A cut message keeps its texts but no call: half a call must never run."""
        delta, blocks = said["delta"], self._message["content"]
        for index, text in self._inputs.items():
            blocks[index]["input"] = _input(text)
        if delta["stop_reason"] == REFUSAL and "stop_details" in delta:
            blocks[:] = [block for block in blocks if not block["type"].endswith("tool_use")]
        self._message |= delta
        estimated = {name: count for name, count in said["usage"].items() if count}
        self._message["usage"] = self._message["usage"] | estimated
        for name in ("weir", "moderation"):
            if name in said:
                self._message[name] = said[name]
        if self._spans and "weir" in said:
            self._message["weir"]["spans"] = self._spans


def _input(text: str) -> Any:
    """Of a call that was cut it is no JSON, and then the call is left out as well."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}
