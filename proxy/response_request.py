"""A request to /v1/responses, and its conversation in the words of chat.

| input item                                  | what the guard reads                                       |
|---------------------------------------------|------------------------------------------------------------|
| a string, message                           | its texts, in its role                                     |
| reasoning                                   | the assistant's reasoning                                  |
| function_call, custom_tool_call             | a tool call: name and arguments                            |
| ..._output of these                         | a tool's turn: its text                                    |
| of the provider's own tools                 | a tool's turn: its JSON, without what is data and not words |
| any other                                   | a user's turn: its JSON, likewise                          |
| image, file, audio, encrypted_content       | nothing: refused, or listed as unscanned where allowed     |

What the upstream would add of its own (an earlier response, a conversation, a stored prompt, an item by
its id) nobody can read here: it is refused, or listed, by `policy.allow_stored`.
"""

import re
from collections.abc import Mapping
from typing import Any

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
    refuse_setting,
    refuse_stored,
    required,
)
from proxy.transcript import Transcript

ROLES = ("user", "assistant", "system", "developer")
TEXT_PARTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
# Calls of the provider's own tools, and what came of them.
TOOLS = re.compile(r"(_call|_output|^mcp_.*|^compaction|^program)$")
# Kinds of part that the guard cannot read.
UNREADABLE = frozenset({"input_image", "input_file", "input_audio", "encrypted_content"})
# What stands for something that only the upstream has: the field, and what is said of it.
STORED = {
    "previous_response_id": "An earlier response is not here to be judged; send the conversation itself.",
    "conversation": "A stored conversation is not here to be judged; send the conversation itself.",
    "prompt": "A stored prompt is not here to be judged; send its text.",
}
BACKGROUND = "An answer made in the background could be read back without having been judged."
REFERENCE = "A stored item is not here to be judged; send the item itself."
# The request's own words, which an answer repeats.
ECHOED = ("instructions", "metadata", "reasoning", "text", "tool_choice", "tools", "user", "previous_response_id")


def read_response_request(body: Mapping[str, Any], terms: Terms) -> ModeratedRequest:
    """The request in `body`. Every field that the guard relies on has its type. Raises BadRequest."""
    refuse_routing(body)
    refuse_stored(body, terms)
    objects(body, "tools", MAX_TOOLS)
    conversation = _Conversation(terms, UNREADABLE)
    conversation.unscanned += _stored(body, terms)
    conversation.add_instructions(body)
    forward = {name: value for name, value in body.items() if name != "moderation"}
    if isinstance(body.get("input"), str):
        conversation.messages.append({"role": "user", "content": body["input"]})
    else:
        forward["input"] = conversation.add_items(body)
    if not terms.allow_stored:
        forward["store"] = False  # the API's own default is to keep
    return ModeratedRequest(
        model=model_of(body),
        messages=conversation.messages,
        stream=field(body, "stream", bool) or False,
        moderation=moderation_of(field(body, "moderation", dict)),
        unscanned=tuple(conversation.unscanned),
        echo={name: body[name] for name in ECHOED if body.get(name) is not None},
        forward=forward,
    )


def _stored(body: Mapping[str, Any], terms: Terms) -> list[str]:
    if field(body, "background", bool) and not terms.allow_stored:
        refuse_setting(BACKGROUND, "background", "policy.allow_stored")
    found = [name for name in STORED if body.get(name) is not None]
    if found and not terms.allow_stored:
        refuse_setting(STORED[found[0]], found[0], "policy.allow_stored")
    return found


class _Conversation(Transcript):
    """Chat messages, as the items come."""

    def add_instructions(self, body: Mapping[str, Any]) -> None:
        if (instructions := field(body, "instructions", str)) is not None:
            self.messages.append({"role": "system", "content": instructions})

    def add_items(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the items that go upstream."""
        required(body, "input", list)
        items = objects(body, "input", self.terms.limits.max_messages)
        if not items:
            raise BadRequest(400, "Invalid 'input': expected at least one item.", "input", "empty_array")
        kept = [item for index, item in enumerate(items) if self._add(item, f"input[{index}]")]
        if not any(message["role"] != "system" for message in self.messages):
            self.messages.append({"role": "user", "content": ""})
        return kept

    def _add(self, item: Mapping[str, Any], where: str) -> bool:
        kind = field(item, "type", str, f"{where}.") or ("message" if "role" in item else "item_reference")
        if kind == "message":
            self._add_message(item, where)
        elif kind == "reasoning":
            return self._add_reasoning(item, where)
        elif kind in CALLS:
            self._add_call(kind, item, where)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            self.add_result(self._text_of(item.get("output"), f"{where}.output"))
        elif kind == "item_reference":
            if not self.terms.allow_stored:
                refuse_setting(REFERENCE, where, "policy.allow_stored")
            self.unscanned.append(f"{where} (item_reference)")
        elif TOOLS.search(kind):
            self.add_result(self.json_of(item, where))
        else:  # for all we know a user wrote it
            self.messages.append({"role": "user", "content": self.json_of(item, where)})
        return True

    def _add_message(self, item: Mapping[str, Any], where: str) -> None:
        role = required(item, "role", str, f"{where}.")
        if role not in ROLES:
            raise BadRequest(400, f"Invalid '{where}.role'.", f"{where}.role", "invalid_value")
        if item.get("content") is None:
            required(item, "content", list, f"{where}.")
        text = self._text_of(item["content"], f"{where}.content")
        last = self.messages[-1] if self.messages else {}
        if role == "assistant" and last.get("role") == role and last.keys() == {"role", "content", "reasoning_content"}:
            last["content"] += text  # what was thought before it is said
        else:
            self.messages.append({"role": role, "content": text})

    def _add_reasoning(self, item: Mapping[str, Any], where: str) -> bool:
        """Without what the upstream encrypted, and not kept there, it says nothing to a model: it stays here."""
        texts = [self._text_of(item.get(name), f"{where}.{name}") for name in ("summary", "content")]
        encrypted = field(item, "encrypted_content", str, f"{where}.")
        if encrypted:
            self.leave_out("encrypted_content", f"{where}.encrypted_content")
        if text := "\n".join(text for text in texts if text):
            self.messages.append({"role": "assistant", "content": "", "reasoning_content": text})
        return bool(encrypted) or bool(item.get("content")) or self.terms.allow_stored

    def _add_call(self, kind: str, item: Mapping[str, Any], where: str) -> None:
        name, (sort, payload) = required(item, "name", str, f"{where}."), CALLS[kind]
        call = {"type": sort, sort: {"name": name, payload: required(item, payload, str, f"{where}.")}}
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": ""})
        self.messages[-1].setdefault("tool_calls", []).append(call)

    def _text_of(self, content: Any, where: str) -> str:
        if content is None or isinstance(content, str):
            return content or ""
        if not isinstance(content, list):
            raise BadRequest(400, f"Invalid type for '{where}': expected a string or an array.", where, "invalid_type")
        texts = []
        for index, part in enumerate(objects({where: content}, where, MAX_PARTS)):
            place = f"{where}[{index}]"
            kind = required(part, "type", str, f"{place}.")
            if kind in TEXT_PARTS:
                texts.append(required(part, TEXT_PARTS[kind], str, f"{place}."))
            else:
                self.leave_out(kind, place)
        return "".join(texts)
