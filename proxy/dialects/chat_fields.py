"""The fields of a chat request, taken one by one for an upstream of another dialect.

What that dialect has no place for is refused by its name, or dropped and noted where the answer is as
good without it. Nothing is left over: a field that nobody took is refused too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from proxy.request_body import BadRequest
from proxy.request_fields import field, objects, required

T = TypeVar("T")

# As good as not given.
NEUTRAL: Mapping[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "n": 1,
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "store": False,
    "tools": [],
    "functions": [],
    "top_logprobs": 0,
}
# What they ask for is no part of the answer: how it is billed, kept, counted, or made faster.
HARMLESS = (
    "metadata",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "service_tier",
    "store",
    "verbosity",
)
# Read before, and told to the upstream in another way.
READ = ("messages", "model", "stream", "stream_options")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
MAX_STOPS = 64
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class ToolChoice:
    mode: str  # auto, none, required, or one: the tool of that name
    name: str = ""


class ChatFields:
    """Raises BadRequest from any of its methods. `dialect`: as people write its name."""

    def __init__(self, body: Mapping[str, Any], dialect: str) -> None:
        self._dialect = dialect
        self._left = {
            name: value
            for name, value in body.items()
            if name not in READ and value is not None and not (name in NEUTRAL and value == NEUTRAL[name])
        }
        self.dropped: list[str] = []  # of those noted: the names
        self.drop(*HARMLESS)

    def take(self, name: str, kind: type[T]) -> T | None:
        value = field(self._left, name, kind)
        self._left.pop(name, None)
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        value = self._left.pop(name, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self.refuse(name, f"it takes numbers from {least:g} to {most:g}")
        return value

    def max_tokens(self) -> int | None:
        older, newer = self.take("max_tokens", int), self.take("max_completion_tokens", int)
        given = newer if newer is not None else older
        if given is not None and given < 1:
            raise BadRequest(400, "Invalid 'max_tokens': expected at least 1.", "max_tokens", "integer_below_min_value")
        return given

    def stops(self) -> list[str]:
        stop = self._left.pop("stop", None)
        stops = [stop] if isinstance(stop, str) else stop or []
        if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(one, str) for one in stops):
            message = f"Invalid 'stop': expected a string or an array of strings, {MAX_STOPS} at most."
            raise BadRequest(400, message, "stop", "invalid_type")
        return stops

    def effort(self) -> str | None:
        effort = self.take("reasoning_effort", str)
        if effort is not None and effort not in EFFORTS:
            self.refuse("reasoning_effort", f"it is one of {', '.join(EFFORTS)}")
        return effort

    def schema(self) -> dict[str, Any] | None:
        """Of `response_format`: the JSON schema, {} for any JSON object, or None for text."""
        wanted = self.take("response_format", dict)
        if wanted is None or wanted.get("type") == "text":
            return None
        kind = required(wanted, "type", str, "response_format.")
        if kind == "json_object":
            return {}
        if kind != "json_schema":
            self.refuse("response_format", "its type is text, json_object or json_schema")
        named = required(wanted, "json_schema", dict, "response_format.")
        return required(named, "schema", dict, "response_format.json_schema.")

    def tools(self) -> list[dict[str, Any]]:
        """The functions: name, description, parameters, strict."""
        tools = objects(self._left, "tools", len(self._left.get("tools") or ()))
        self._left.pop("tools", None)
        functions = []
        for index, tool in enumerate(tools):
            where = f"tools[{index}]"
            if tool.get("type") != "function":
                self.refuse(where, "only tools of type function can be called")
            function = required(tool, "function", dict, f"{where}.")
            required(function, "name", str, f"{where}.function.")
            field(function, "description", str, f"{where}.function.")
            field(function, "parameters", dict, f"{where}.function.")
            functions.append(function)
        return functions

    def tool_choice(self) -> ToolChoice | None:
        choice = self._left.pop("tool_choice", None)
        if choice is None:
            return None
        if choice in ("auto", "none", "required"):
            return ToolChoice(choice)
        if not isinstance(choice, dict) or choice.get("type") != "function":
            self.refuse("tool_choice", "it is auto, none, required or one function")
        function = required(choice, "function", dict, "tool_choice.")
        return ToolChoice("one", required(function, "name", str, "tool_choice.function."))

    def drop(self, *names: str) -> None:
        self.dropped += [name for name in names if self._left.pop(name, None) is not None]

    def refuse(self, name: str, why: str) -> NoReturn:
        message = f"'{name}' cannot be sent to this model: its upstream speaks {self._dialect}; {why}."
        raise BadRequest(400, message, name, "unsupported_parameter")

    def finish(self) -> None:
        """What is left has no place in the dialect."""
        for name in self._left:
            if NAME.fullmatch(name):
                self.refuse(name, "the field has no counterpart there")
            raise BadRequest(400, "A field of the request is unknown.", None, "unsupported_parameter")
