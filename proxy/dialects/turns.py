"""The messages of a chat request as turns, for dialects in which a turn is a list of parts.

Turns of one side that follow each other are one: tool results and what the user adds to them stand together.
Texts stay exactly as the guard reads them; a text of no characters is left out.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from adapters.structures import is_signature
from proxy.request_body import BadRequest, read_object
from proxy.request_fields import field as field_of
from proxy.request_fields import objects, required

MAX_DEPTH = 64  # of the arguments of a call
DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,([A-Za-z0-9+/_-]*={0,2})")
KNOWN = frozenset({"role", "content", "tool_calls", "tool_call_id", "refusal", "function_call", "audio"})


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a sound: base64 with its type, or an address."""

    where: str
    type: str = ""
    data: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that the model called."""

    id: str
    name: str
    arguments: dict[str, Any]
    signature: str = ""  # Gemini's


@dataclass(frozen=True, slots=True)
class Result:
    """What the tool answered."""

    id: str
    name: str
    text: str


Part = Text | Media | Call | Result


@dataclass(slots=True)
class Conversation:
    system: list[str] = field(default_factory=list)
    turns: list[tuple[str, list[Part]]] = field(default_factory=list)  # role (user, assistant), parts
    dropped: dict[str, None] = field(default_factory=dict)  # the names, each once and in order
    _names: dict[str, str] = field(default_factory=dict)  # of tools, by the id of the call

    @property
    def ends_with_results(self) -> bool:
        return bool(self.turns) and any(isinstance(part, Result) for part in self.turns[-1][1])

    def add(self, message: Mapping[str, Any], where: str) -> None:
        role = message["role"]
        read = READERS.get(role)
        if read is None:
            _refuse(f"{where}.role", "is not one that this model's upstream knows")
        for name in ("function_call", "audio"):
            if message.get(name) is not None:
                _refuse(f"{where}.{name}", "has no counterpart at this model's upstream")
        if any(message[name] not in (None, [], {}) for name in message.keys() - KNOWN):
            self.dropped["messages[].name" if message.get("name") is not None else "messages[]"] = None
        read(self, message, where)

    def _add_system(self, message: Mapping[str, Any], where: str) -> None:
        self.system += [_text_alone(part, where).text for part in _content(message, where)]

    def _add_user(self, message: Mapping[str, Any], where: str) -> None:
        self._turn("user", list(_content(message, where)))

    def _add_assistant(self, message: Mapping[str, Any], where: str) -> None:
        parts: list[Part] = [_text_alone(part, where) for part in _content(message, where)]
        if refusal := message.get("refusal"):
            parts.append(Text(_string(refusal, f"{where}.refusal")))
        for index, call in enumerate(objects(message, "tool_calls", len(message.get("tool_calls") or ()), where)):
            read = _call(call, f"{where}.tool_calls[{index}]")
            self._names[read.id] = read.name
            parts.append(read)
        self._turn("assistant", parts)

    def _add_result(self, message: Mapping[str, Any], where: str) -> None:
        call = required(message, "tool_call_id", str, f"{where}.")
        if call not in self._names:
            _refuse(f"{where}.tool_call_id", "is the id of no call in the messages before it")
        text = "".join(_text_alone(part, where).text for part in _content(message, where))
        self._turn("user", [Result(call, self._names[call], text)])

    def _turn(self, role: str, parts: list[Part]) -> None:
        if self.turns and self.turns[-1][0] == role:
            self.turns[-1][1].extend(parts)
        elif parts:
            self.turns.append((role, parts))


READERS = {
    "system": Conversation._add_system,
    "developer": Conversation._add_system,
    "user": Conversation._add_user,
    "assistant": Conversation._add_assistant,
    "tool": Conversation._add_result,
}


def read_turns(messages: list[dict[str, Any]]) -> Conversation:
    """Raises BadRequest for what a turn of parts cannot hold."""
    conversation = Conversation()
    for index, message in enumerate(messages):
        conversation.add(message, f"messages[{index}]")
    if not conversation.turns:
        _refuse("messages", "must hold a turn of the user or the assistant for this model's upstream")
    return conversation


def _content(message: Mapping[str, Any], where: str) -> Iterator[Part]:
    content = message.get("content")
    if isinstance(content, str):
        parts: list[Part] = [Text(content)]
    else:
        listed = enumerate(objects(message, "content", len(content or ()), f"{where}."))
        parts = [_part(part, f"{where}.content[{index}]") for index, part in listed]
    return (part for part in parts if part != Text(""))


def _part(part: Mapping[str, Any], where: str) -> Part:
    kind = part.get("type")
    read = PARTS.get(kind) if isinstance(kind, str) else None
    if read is None:
        _refuse(where, "is a part that this model's upstream does not take")
    return read(part, where)


def _text(part: Mapping[str, Any], where: str) -> Text:
    return Text(required(part, part["type"], str, f"{where}."))


def _image(part: Mapping[str, Any], where: str) -> Media:
    url = required(required(part, "image_url", dict, f"{where}."), "url", str, f"{where}.image_url.")
    if found := DATA_URL.fullmatch(url):
        return Media(where, found[1], found[2])
    if not url.startswith(("https://", "http://")):
        _refuse(f"{where}.image_url.url", "must be an http address or a data: URL in base64")
    return Media(where, url=url)


def _sound(part: Mapping[str, Any], where: str) -> Media:
    audio = required(part, "input_audio", dict, f"{where}.")
    form = required(audio, "format", str, f"{where}.input_audio.")
    if form not in ("wav", "mp3"):
        _refuse(f"{where}.input_audio.format", "must be wav or mp3")
    return Media(where, f"audio/{form}", required(audio, "data", str, f"{where}.input_audio."))


PARTS: Mapping[str, Callable[[Mapping[str, Any], str], Part]] = {
    "text": _text,
    "refusal": _text,
    "image_url": _image,
    "input_audio": _sound,
}


def _text_alone(part: Part, where: str) -> Text:
    if not isinstance(part, Text):
        _refuse(f"{where}.content", "holds more than text, which only a user's message can")
    return part


def _call(call: Mapping[str, Any], where: str) -> Call:
    if call.get("type", "function") != "function":
        _refuse(f"{where}.type", "must be function for this model's upstream")
    function = required(call, "function", dict, f"{where}.")
    name = required(function, "name", str, f"{where}.function.")
    arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
    return Call(required(call, "id", str, f"{where}."), name, arguments, _signature(call, where))


def _signature(call: Mapping[str, Any], where: str) -> str:
    extra = field_of(call, "extra_content", dict, f"{where}.") or {}
    google = field_of(extra, "google", dict, f"{where}.extra_content.") or {}
    signature = google.get("thought_signature")
    if signature is not None and not is_signature(signature):
        _refuse(f"{where}.extra_content.google.thought_signature", "is no signature")
    return signature or ""


def _arguments(arguments: Any, where: str) -> dict[str, Any]:
    if isinstance(arguments, dict):
        return arguments
    text = _string(arguments or "{}", where)
    try:
        return read_object(text.encode(), max_depth=MAX_DEPTH)
    except BadRequest:
        _refuse(where, "is not a JSON object")


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        _refuse(where, "must be a string")
    return value


def _refuse(param: str, why: str) -> NoReturn:
    raise BadRequest(400, f"'{param}' {why}.", param, "invalid_value")
