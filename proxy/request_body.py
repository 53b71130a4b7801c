"""A request's body, read strictly: what is judged must be what the upstream will read.

Two JSON readers that disagree (about a key given twice, a number without end, half a character)
would let the guard judge one conversation and the model answer another. So whatever readers are
known to disagree about is refused, and the upstream gets our own writing of what we understood.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar, cast

from proxy.settings import ServerSettings

# No field of the API has a longer name; tools' parameters have names of their own.
MAX_KEY_CHARS = 1024
# A million empty lists fit the largest body and take seconds to look at; real requests hold some thousand values.
MAX_VALUES = 200_000
MAX_BRACKETS = 2 * MAX_VALUES  # counted before parsing, those in texts included
MAX_PARTS = 4096  # of one message
MAX_TOOLS = 256
MAX_MODEL_CHARS = 256

ModerationMode = Literal["score", "block"]
T = TypeVar("T")


class BadRequest(Exception):
    """A body that cannot be accepted. The message repeats nothing of it but names of the API's own."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class ModerationAsk:
    """OpenAI's `moderation` field: what the client wants to be told or have blocked."""

    model: str
    input: ModerationMode = "score"
    output: ModerationMode = "score"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the proxy has to know of a chat request, and the body that goes upstream."""

    model: str
    messages: list[dict[str, Any]]
    forward: dict[str, Any]
    stream: bool = False
    choices: int = 1
    include_usage: bool = False
    moderation: ModerationAsk | None = None


def check_headers(content_type: str | None, content_encoding: str | None) -> None:
    """Only plain JSON in UTF-8 is read. Raises BadRequest (415)."""
    if (content_encoding or "identity").strip().lower() not in ("identity", ""):
        raise BadRequest(415, "Send the body without a content-encoding.", code="unsupported_content_encoding")
    media_type, *parameters = (content_type or "").split(";")
    if media_type.strip().lower() != "application/json":
        raise BadRequest(415, "Send the body as content-type: application/json.", code="unsupported_media_type")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            raise BadRequest(415, "Send the body in UTF-8.", code="unsupported_charset")


def read_object(raw: bytes, *, max_depth: int) -> dict[str, Any]:
    """The JSON object in `raw`. Raises BadRequest for all else, and for what JSON readers disagree about."""
    if raw.startswith(b"\xef\xbb\xbf"):
        _refuse("The body begins with a byte order mark; send plain UTF-8.")
    if raw.count(b"[") + raw.count(b"{") > MAX_BRACKETS:
        _refuse(f"The body holds more than {MAX_BRACKETS} brackets.")
    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=_distinct, parse_constant=_refuse_constant, parse_float=_finite
        )
    except UnicodeDecodeError:
        _refuse("The body is not UTF-8.")
    except json.JSONDecodeError as exc:
        _refuse(f"The body is not JSON (line {exc.lineno}, column {exc.colno}).")
    except RecursionError:
        _refuse(f"The body is nested deeper than {max_depth} levels.")
    except ValueError:  # an integer of more digits than Python reads
        _refuse("The body holds a number with too many digits.")
    if not isinstance(value, dict):
        _refuse("The body must be a JSON object.")
    _check_tree(value, max_depth)
    return value


def dump(forward: Mapping[str, Any]) -> bytes:
    """The body that goes upstream: every number, string and key as it was read."""
    return json.dumps(forward, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _refuse(message: str) -> NoReturn:
    raise BadRequest(400, message, code="invalid_json")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        _refuse("An object in the body gives the same key twice.")
    return table


def _refuse_constant(_: str) -> NoReturn:
    _refuse("The body holds NaN or Infinity, which are not JSON.")


def _finite(lexeme: str) -> float:
    number = float(lexeme)
    if math.isinf(number):
        _refuse("The body holds a number too large for a double.")
    return number


def _check_tree(value: Any, max_depth: int) -> None:
    """Depth, key lengths and half characters; level by level, for recursion itself would have to be bounded."""
    level, depth, seen = [value], 0, 0
    while level:
        seen += len(level)
        if seen > MAX_VALUES:
            _refuse(f"The body holds more than {MAX_VALUES} values.")
        if not all(_is_encodable(item) for item in level if isinstance(item, str)):
            _refuse("A string in the body holds half of a surrogate pair.")
        tables = [item for item in level if isinstance(item, dict)]
        lists = [item for item in level if isinstance(item, list)]
        if depth == max_depth and (tables or lists):
            _refuse(f"The body is nested deeper than {max_depth} levels.")
        keys = [key for table in tables for key in table]
        if any(len(key) > MAX_KEY_CHARS for key in keys):
            _refuse(f"The body has a key of more than {MAX_KEY_CHARS} characters.")
        level = (
            keys + [item for table in tables for item in table.values()] + [item for items in lists for item in items]
        )
        depth += 1


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# Fields with which known gateways let a request pick its upstream or its credential. Ours are set by
# the operator alone, and an upstream that is such a gateway must not be steered through us either.
UPSTREAM_FIELDS = re.compile(
    r"api_(base|key|type|version)|(azure|litellm|vertex|aws)_.*|custom_llm_provider|deployment_id|user_config"
    r"|((base|target|upstream|server)_?)?url|endpoint|extra_(body|headers|query)|default_(headers|query)"
    r"|model_list|(\w+_)?fallbacks|mock_response|headers|organization|proxy|upstream|client|router_settings"
)

JSON_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer"}


def read_chat_request(body: Mapping[str, Any], limits: ServerSettings) -> ChatRequest:
    """The chat request in `body`. Every field that the guard relies on has its type. Raises BadRequest."""
    for name in body:
        if UPSTREAM_FIELDS.fullmatch(name.lower().replace("-", "_")):
            raise BadRequest(
                400, "This server's upstream is not the request's to choose.", None, "unsupported_parameter"
            )
    if _field(body, "store", bool):
        raise BadRequest(
            400,
            "Stored answers could be read back without having been moderated; leave out 'store' or set it to false.",
            "store",
            "unsupported_value",
        )
    for name in ("tools", "functions"):
        _objects(body, name, MAX_TOOLS)
    stream_options = _field(body, "stream_options", dict) or {}
    return ChatRequest(
        model=_model(body),
        messages=_messages(body, limits.max_messages),
        stream=_field(body, "stream", bool) or False,
        choices=_choices(body, limits.max_choices),
        include_usage=_field(stream_options, "include_usage", bool, "stream_options.") or False,
        moderation=_moderation(_field(body, "moderation", dict)),
        forward={name: value for name, value in body.items() if name != "moderation"},
    )


def _field(table: Mapping[str, Any], name: str, kind: type[T], where: str = "") -> T | None:
    """A field of that type exactly (true is no integer), or None where it is missing or null."""
    value = table.get(name)
    if value is not None and type(value) is not kind:
        param = f"{where}{name}"
        raise BadRequest(400, f"Invalid type for '{param}': expected {JSON_NAMES[kind]}.", param, "invalid_type")
    return value


def _required(table: Mapping[str, Any], name: str, kind: type[T], where: str = "") -> T:
    value = _field(table, name, kind, where)
    if value is None:
        param = f"{where}{name}"
        raise BadRequest(400, f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    return value


def _objects(table: Mapping[str, Any], name: str, most: int, where: str = "") -> list[dict[str, Any]]:
    """A list of objects and no more than `most`; empty where it is missing."""
    items, param = _field(table, name, list, where) or [], f"{where}{name}"
    if len(items) > most:
        raise BadRequest(400, f"Invalid '{param}': more than {most} items.", param, "array_above_max_length")
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            param = f"{param}[{index}]"
            raise BadRequest(400, f"Invalid type for '{param}': expected an object.", param, "invalid_type")
    return items


def _model(body: Mapping[str, Any]) -> str:
    model = _required(body, "model", str)
    # A model that is a URL is how some gateways are sent elsewhere.
    if not re.fullmatch(rf"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{{1,{MAX_MODEL_CHARS}}}", model) or "://" in model:
        message = f"Invalid 'model': expected a name of 1 to {MAX_MODEL_CHARS} characters, without control characters."
        raise BadRequest(400, message, "model", "invalid_value")
    return model


def _messages(body: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    _required(body, "messages", list)
    messages = _objects(body, "messages", most)
    if not messages:
        raise BadRequest(400, "Invalid 'messages': expected at least one.", "messages", "empty_array")
    for index, message in enumerate(messages):
        where = f"messages[{index}]."
        _required(message, "role", str, where)
        if not isinstance(message.get("content"), str):
            _parts(message, where)
        _objects(message, "tool_calls", MAX_TOOLS, where)
        _field(message, "function_call", dict, where)
    return messages


def _parts(message: Mapping[str, Any], where: str) -> None:
    content = message.get("content")
    if content is not None and not isinstance(content, list):
        param = f"{where}content"
        raise BadRequest(
            400, f"Invalid type for '{param}': expected a string or an array of parts.", param, "invalid_type"
        )
    for index, part in enumerate(_objects(message, "content", MAX_PARTS, where)):
        _required(part, "type", str, f"{where}content[{index}].")


def _choices(body: Mapping[str, Any], most: int) -> int:
    n = _field(body, "n", int)
    if n is not None and not 1 <= n <= most:
        code = "integer_below_min_value" if n < 1 else "integer_above_max_value"
        raise BadRequest(400, f"Invalid 'n': expected an integer from 1 to {most}.", "n", code)
    return n or 1


def _moderation(ask: dict[str, Any] | None) -> ModerationAsk | None:
    """This one is ours to answer, so its shape is held to strictly: a misspelt `block` must not pass as `score`."""
    if ask is None:
        return None
    _only(ask, ("model", "policy"), "moderation")
    policy = _field(ask, "policy", dict, "moderation.") or {}
    _only(policy, ("input", "output"), "moderation.policy")
    return ModerationAsk(
        model=_required(ask, "model", str, "moderation."),
        input=_mode(policy, "input"),
        output=_mode(policy, "output"),
    )


def _mode(policy: Mapping[str, Any], side: str) -> ModerationMode:
    where = f"moderation.policy.{side}"
    wish = _field(policy, side, dict, "moderation.policy.")
    if wish is None:
        return "score"
    _only(wish, ("mode",), where)
    mode = _required(wish, "mode", str, f"{where}.")
    if mode not in ("score", "block"):
        param = f"{where}.mode"
        raise BadRequest(400, f"Invalid '{param}': expected 'score' or 'block'.", param, "invalid_value")
    return cast(ModerationMode, mode)


def _only(table: Mapping[str, Any], known: tuple[str, ...], param: str) -> None:
    if not table.keys() <= set(known):
        names = " and ".join(f"'{name}'" for name in known)
        raise BadRequest(400, f"Unknown field in '{param}': it takes {names}.", param, "unknown_parameter")
