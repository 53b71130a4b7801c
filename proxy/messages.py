"""What a request's messages say: their text, checked, and what cannot be read."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# OpenAI's rule for `name`.
NAME = re.compile(r"[^\s<|\\/>]{1,64}")
# Where a text part of each type has its text.
TEXT_PARTS = {"text": "text", "refusal": "refusal"}
_MAY_BE_EMPTY = ("assistant", "function")  # `content: null` is theirs to send


class ConversationError(ValueError):
    """The conversation cannot be judged, and why; `param` says where."""

    def __init__(self, message: str, param: str, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def role_of(message: object, where: str) -> str:
    if not isinstance(message, dict):
        refuse(f"'{where}' must be an object.", where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        refuse(f"'{where}.role' must be one of {', '.join(ROLES)}.", f"{where}.role")
    return ROLES[role]


@dataclass(slots=True)
class Reader:
    """Checks the messages and takes their text out."""

    allow_unscanned: bool
    unscanned: list[str] = field(default_factory=list)

    def content(self, message: Mapping[str, Any], where: str) -> str:
        content = message.get("content")
        param = f"{where}.content"
        if isinstance(content, str):
            return content
        if content is None and message["role"] in _MAY_BE_EMPTY:
            return ""
        if not isinstance(content, list):
            refuse(f"'{param}' must be a string or a list of parts.", param)
        if not content:
            refuse(f"'{param}' has no parts.", param)
        return "".join(self._part(part, f"{param}[{index}]") for index, part in enumerate(content))

    def _part(self, part: object, param: str) -> str:
        if not isinstance(part, dict):
            refuse(f"'{param}' must be an object with a type.", param)
        kind = part.get("type")
        if not isinstance(kind, str):
            refuse(f"'{param}.type' must be a string.", f"{param}.type")
        if kind not in TEXT_PARTS:
            return self.leave_out(kind, param)
        return text_of(part, TEXT_PARTS[kind], param) or ""

    def leave_out(self, kind: str, param: str) -> str:
        if not self.allow_unscanned:
            refuse(f"'{param}' cannot be read by the guard: only text can.", param, "unscannable_content")
        self.unscanned.append(f"{param} ({kind if kind in _KNOWN_PARTS else 'unknown type'})")
        return ""

    def named(self, message: Mapping[str, Any], where: str) -> str:
        """The content behind its sender's name."""
        name = text_of(message, "name", where, required=False)
        if name is None:
            return self.content(message, where)
        if not NAME.fullmatch(name):
            param = f"{where}.name"
            refuse(f"'{param}' must be 1 to 64 characters, none of them blank or one of <|\\/>.", param)
        return f"{name}: {self.content(message, where)}"

    def calls(self, message: Mapping[str, Any], where: str) -> list[str]:
        """The tool calls as the template writes them."""
        calls = message.get("tool_calls")
        texts = []
        for index, call in enumerate(_list(calls, f"{where}.tool_calls")):
            param = f"{where}.tool_calls[{index}]"
            kind = call.get("type", "function")
            if kind == "function":
                texts.append(_call_text(_object(call, "function", param), "arguments", f"{param}.function"))
            elif kind == "custom":
                texts.append(_call_text(_object(call, "custom", param), "input", f"{param}.custom"))
            else:
                self.leave_out(str(kind), param)
        if message.get("function_call") is not None:
            legacy = _object(message, "function_call", where)
            texts.append(_call_text(legacy, "arguments", f"{where}.function_call"))
        return texts


_KNOWN_PARTS = frozenset({"image_url", "input_audio", "audio", "file", "video_url", "input_image", "input_file"})


def refuse(message: str, param: str, code: str | None = None) -> NoReturn:
    raise ConversationError(message, param, code)


def text_of(table: Mapping[str, Any], name: str, where: str, *, required: bool = True) -> str | None:
    value = table.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str):
        refuse(f"'{where}.{name}' must be a string.", f"{where}.{name}")
    return value


def _object(table: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = table.get(name)
    if not isinstance(value, dict):
        refuse(f"'{where}.{name}' must be an object.", f"{where}.{name}")
    return value


def _list(value: object, param: str) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        refuse(f"'{param}' must be a list of objects.", param)
    return value


def _call_text(call: Mapping[str, Any], payload: str, where: str) -> str:
    name = text_of(call, "name", where)
    arguments = call.get(payload)
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str):
        refuse(f"'{where}.{payload}' must be a string.", f"{where}.{payload}")
    return f'\n{{"name": "{name}", "arguments": {arguments}}}\n'
