"""/v1/chat/completions as a stream: `chat.completion.chunk` events."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from adapters.azure_notation import azure_block, azure_finish, azure_note, azure_prompt
from adapters.base import Block, Delta, Event, Failure, Finish, Key, Note, Opaque, Options, Piece, Report, Usage
from adapters.metadata import Envelope
from adapters.notations import moderation, weir_block, weir_finish, weir_note, written_note
from adapters.openai_chat_calls import TOOL_TEXTS, TOOL_TYPES
from adapters.openai_chat_reader import CHUNK, ChatReader
from adapters.strict_json import write, write_checked

DONE: Final = "[DONE]"


class ChatStream:
    """One streamed response."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._reader = self._open_reader(options)
        self._introduced: set[int] = set()  # choices whose role the client knows
        self._described: set[Key] = set()  # reasoning details whose id and format the client knows

    def _open_reader(self, options: Options) -> ChatReader:
        return ChatReader(options, CHUNK)

    @property
    def dropped(self) -> int:
        return self._reader.dropped

    def decode(self, event: Event) -> list[Piece]:
        return self._reader.end() if event.data.strip() == DONE else self._reader.read(event)

    def encode(self, piece: Delta | Opaque, note: Note | None) -> list[Event]:
        if isinstance(piece, Delta):
            if (plain := self._plain(piece, note)) is not None:
                return [plain]
            return [self._at_length(piece, note)]
        if piece.choice is None:
            return [_chunk(piece.source, [], piece.payload)]
        if "role" in piece.payload:
            self._introduced.add(piece.choice)
        return [_chunk(piece.source, [self._choice(piece.choice, piece.payload)])]

    def _plain(self, piece: Delta, note: Note | None) -> Event | None:
        """The event of a piece of content, as nearly all are; the long way writes the same."""
        if piece.key.channel != "content" or piece.logprobs or self._options.notations.azure:
            return None
        envelope: Envelope = piece.source
        text = write_checked(piece.text)
        weir = f',"weir":{written_note(note)}' if note is not None and self._options.notations.weir else ""
        # One text of it all: a part that is written first is copied once more.
        return Event(
            f'{envelope.head}"choices":[{{"index":{piece.key.choice},"delta":{{"content":{text}}},'
            f'"logprobs":null,"finish_reason":null}}]{weir}}}'
        )

    def _at_length(self, piece: Delta, note: Note | None) -> Event:
        more = {"weir": weir_note(note)} if note is not None and self._options.notations.weir else {}
        choice = self._choice(piece.key.choice, self._delta(piece), self._logprobs(piece))
        if note is not None and self._options.notations.azure:
            choice |= azure_note(note)
        return _chunk(piece.source, [choice], more)

    def encode_finish(self, finish: Finish, report: Report) -> list[Event]:
        choice = self._choice(finish.choice, {}, finish_reason=finish.reason)
        if native := self._reader.native_reasons.get(finish.choice):
            choice["native_finish_reason"] = native
        more = {"weir": weir_finish(report)} if self._options.notations.weir else {}
        if self._options.notations.azure:
            choice |= azure_finish(report)
            more |= azure_prompt(report)
        return [_chunk(finish.source or self._reader.envelope(), [choice], more | self._moderation(report))]

    def encode_block(self, block: Block, report: Report) -> list[Event]:
        role = {} if block.choice in self._introduced else {"role": "assistant"}
        choice = self._choice(block.choice, role | {"content": block.notice}, finish_reason="content_filter")
        more = {"weir": weir_block(block)} if self._options.notations.weir else {}
        if self._options.notations.azure:
            choice |= azure_block(block, report)
            more |= azure_prompt(report)
        return [_chunk(self._reader.envelope(), [choice], self._moderation(report) | more)]

    def encode_usage(self, usage: Usage) -> list[Event]:
        # Marked whatever annotations are wanted: a guess must never pass for a count.
        more = {"usage": usage_fields(usage), "weir": {"usage": "estimated"}}
        return [_chunk(self._reader.envelope(), [], more)]

    def encode_end(self) -> list[Event]:
        return [Event(DONE)]

    def encode_failure(self, failure: Failure) -> list[Event]:
        return [failure_event(failure)]

    def _moderation(self, report: Report) -> dict[str, Any]:
        if not self._options.notations.openai:
            return {}
        return {"moderation": moderation(self._options.guard_model, report.prompt, [report.answer])}

    def _choice(
        self,
        index: int,
        delta: Mapping[str, Any],
        logprobs: Mapping[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

    def _logprobs(self, piece: Delta) -> dict[str, Any] | None:
        if not piece.logprobs:
            return None
        entries = [logprob.entry for logprob in piece.logprobs]
        return {"content": None, "refusal": None, piece.key.channel: entries}

    def _delta(self, piece: Delta) -> dict[str, Any]:
        field, _, rest = piece.key.channel.partition(".")
        write_delta = WRITERS.get(field)
        return write_delta(self, piece, rest) if write_delta else {field: piece.text}

    def _unknown(self, piece: Delta, rest: str) -> dict[str, Any]:
        return {rest: piece.text}

    def _nested(self, piece: Delta, rest: str) -> dict[str, Any]:
        return {piece.key.channel.partition(".")[0]: {rest: piece.text}}

    def _function_call(self, piece: Delta, rest: str) -> dict[str, Any]:
        call = {rest: piece.text}
        if rest == "name":
            call["arguments"] = ""
        return {"function_call": call}

    def _detail(self, piece: Delta, rest: str) -> dict[str, Any]:
        index, _, field = rest.partition(".")
        detail = {"type": f"reasoning.{field}", "index": int(index), field: piece.text}
        if piece.key not in self._described:
            self._described.add(piece.key)
            detail |= piece.extra
        return {"reasoning_details": [detail]}

    def _tool_call(self, piece: Delta, rest: str) -> dict[str, Any]:
        """The first chunk of a call tells id, type and name: clients make the call from it."""
        call = self._reader.calls.find(piece.key)
        field = rest.partition(".")[2]
        kind = TOOL_TYPES.get(field, call.type)
        text = {field: piece.text}
        entry: dict[str, Any] = {"index": call.index}
        if not call.is_announced:
            entry |= call.announce()
            if field == "name":
                text[TOOL_TEXTS[kind][0]] = ""
        return {"tool_calls": [entry | {kind: text}]}


WRITERS: Mapping[str, Callable[[ChatStream, Delta, str], dict[str, Any]]] = {
    "audio": ChatStream._nested,
    "delta": ChatStream._unknown,
    "function_call": ChatStream._function_call,
    "reasoning_details": ChatStream._detail,
    "tool_calls": ChatStream._tool_call,
}


def usage_fields(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def failure_event(failure: Failure) -> Event:
    error = {"message": failure.message, "type": failure.type, "param": None, "code": failure.code}
    return Event(write({"error": error}))


def _chunk(envelope: Envelope, choices: list[dict[str, Any]], more: Mapping[str, Any] | None = None) -> Event:
    return Event(envelope.head + write_checked({"choices": choices, **(more or {})})[1:])
