"""A request to /v1/messages (Anthropic), and its conversation in the words of chat.

| content block                        | what the guard reads                                            |
|--------------------------------------|-----------------------------------------------------------------|
| text                                 | its text, one after the other                                   |
| thinking                             | the assistant's reasoning                                       |
| tool_use, server_tool_use, ...       | a tool call: name and input                                     |
| tool_result                          | a tool's turn: its text                                         |
| document of text                     | title, context and text, where it stands                        |
| any other                            | its JSON, without what is data and not words: where it stands,  |
|                                      | or a tool's turn where the assistant has it                     |
| image, file, redacted_thinking       | nothing: refused, or listed as unscanned where that is allowed  |
"""

from collections.abc import Mapping
from typing import Any

from adapters.strict_json import write
from proxy.request_body import BadRequest
from proxy.request_fields import (
    MAX_PARTS,
    MAX_TOOLS,
    ModeratedRequest,
    Terms,
    field,
    model_of,
    moderation_of,
    objects,
    refuse_routing,
    required,
)
from proxy.transcript import Transcript

MAX_STOPS = 64
# Blocks and sources that hold nothing a reader of text can see.
UNREADABLE = frozenset({"image", "file", "redacted_thinking", "container_upload", "base64", "url", "video", "audio"})
ROLES = ("user", "assistant", "system")


def read_message_request(body: Mapping[str, Any], terms: Terms) -> ModeratedRequest:
    """The request in `body`. Every field that the guard relies on has its type. Raises BadRequest."""
    refuse_routing(body)
    objects(body, "tools", MAX_TOOLS)
    conversation = _Conversation(terms, UNREADABLE)
    conversation.add_system(body)
    required(body, "messages", list)
    messages = objects(body, "messages", terms.limits.max_messages)
    if not messages:
        raise BadRequest(400, "Invalid 'messages': expected at least one.", "messages", "empty_array")
    for index, message in enumerate(messages):
        conversation.add(message, f"messages[{index}]")
    return ModeratedRequest(
        model=model_of(body),
        messages=conversation.messages,
        stream=field(body, "stream", bool) or False,
        include_usage=True,  # the dialect ends every answer with its counts
        moderation=moderation_of(field(body, "moderation", dict)),
        echo={"stop_sequences": _stops(body)},
        unscanned=tuple(conversation.unscanned),
        forward={name: value for name, value in body.items() if name != "moderation"},
    )


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stops = field(body, "stop_sequences", list) or []
    if len(stops) > MAX_STOPS or not all(isinstance(stop, str) for stop in stops):
        message = f"Invalid 'stop_sequences': expected an array of strings, {MAX_STOPS} at most."
        raise BadRequest(400, message, "stop_sequences", "invalid_type")
    return tuple(stops)


class _Conversation(Transcript):
    """Chat messages, as the blocks come."""

    def add_system(self, body: Mapping[str, Any]) -> None:
        system = body.get("system")
        if system is not None:
            self.messages.append({"role": "system", "content": self._text_of(system, "system")})

    def add(self, message: Mapping[str, Any], where: str) -> None:
        role = required(message, "role", str, f"{where}.")
        if role not in ROLES:
            raise BadRequest(400, f"Invalid '{where}.role'.", f"{where}.role", "invalid_value")
        content = message.get("content")
        if isinstance(content, str):
            self.messages.append({"role": role, "content": content})
            return
        required(message, "content", list, f"{where}.")
        begun = len(self.messages)
        for index, block in enumerate(objects(message, "content", MAX_PARTS, f"{where}.")):
            self._add_block(role, block, f"{where}.content[{index}]", begun)
        if len(self.messages) == begun:  # nothing that can be read, and yet a turn
            self.messages.append({"role": role, "content": ""})

    def _add_block(self, role: str, block: Mapping[str, Any], where: str, begun: int) -> None:
        kind = required(block, "type", str, f"{where}.")
        if kind == "text":
            self._turn(role, begun)["content"] += required(block, "text", str, f"{where}.")
        elif kind == "thinking" and role == "assistant":
            turn = self._turn(role, begun)
            turn["reasoning_content"] = turn.get("reasoning_content", "") + (field(block, "thinking", str) or "")
        elif kind.endswith("tool_use") and role == "assistant":
            name = required(block, "name", str, f"{where}.")
            arguments = write(field(block, "input", dict, f"{where}.") or {})
            call = {"type": "function", "function": {"name": name, "arguments": arguments}}
            self._turn(role, begun).setdefault("tool_calls", []).append(call)
        elif kind == "document":
            self._turn(role, begun)["content"] += self._document(block, where)
        elif kind in UNREADABLE:
            self.leave_out(kind, where)
        elif kind == "tool_result":
            self.add_result(self._text_of(block.get("content"), f"{where}.content"))
        elif role == "assistant":  # the provider's own tools answer within the assistant's turn
            self.add_result(self.json_of(block, where))
        else:
            self._turn(role, begun)["content"] += self.json_of(block, where)

    def _turn(self, role: str, begun: int) -> dict[str, Any]:
        """The message that text of that role goes into: the last one of this turn, unless a result came between."""
        if len(self.messages) == begun or self.messages[-1]["role"] != role:
            self.messages.append({"role": role, "content": ""})
        return self.messages[-1]

    def _text_of(self, content: Any, where: str) -> str:
        """A string, or a list of blocks that are text or stand for it."""
        if content is None or isinstance(content, str):
            return content or ""
        if not isinstance(content, list):
            raise BadRequest(400, f"Invalid type for '{where}': expected a string or an array.", where, "invalid_type")
        texts = []
        for index, block in enumerate(objects({where: content}, where, MAX_PARTS)):
            place = f"{where}[{index}]"
            kind = required(block, "type", str, f"{place}.")
            if kind == "text":
                texts.append(required(block, "text", str, f"{place}."))
            elif kind == "document":
                texts.append(self._document(block, place))
            elif kind in UNREADABLE:
                self.leave_out(kind, place)
            else:
                texts.append(self.json_of(block, place))
        return "".join(texts)

    def _document(self, block: Mapping[str, Any], where: str) -> str:
        source = required(block, "source", dict, f"{where}.")
        kind = required(source, "type", str, f"{where}.source.")
        texts = [field(block, name, str, f"{where}.") or "" for name in ("title", "context")]
        if kind == "text":
            texts.append(required(source, "data", str, f"{where}.source."))
        elif kind == "content":
            texts.append(self._text_of(source.get("content"), f"{where}.source.content"))
        else:
            self.leave_out(kind, f"{where}.source")
        return "\n".join(text for text in texts if text)
