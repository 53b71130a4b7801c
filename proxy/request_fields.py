"""The fields that requests of every dialect share, each of its exact type, and what a request comes to."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Literal, NoReturn, TypeVar, cast

from proxy.limits import Limit
from proxy.request_body import BadRequest
from proxy.server_settings import ServerSettings

MAX_PARTS = 4096  # of one message
MAX_TOOLS = 256
MAX_MODEL_CHARS = 256
# Of any other list it is that of the parts of a message.
LIMIT_OF_LIST = dict.fromkeys(("messages", "structured_messages", "input"), Limit.MESSAGES) | dict.fromkeys(
    ("tools", "functions", "tool_calls"), Limit.TOOLS
)
MODEL = re.compile(rf"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{{1,{MAX_MODEL_CHARS}}}")

ModerationMode = Literal["score", "block"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModerationAsk:
    """OpenAI's `moderation` field: what the client wants to be told or have blocked."""

    model: str
    input: ModerationMode = "score"
    output: ModerationMode = "score"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator allows of a request."""

    limits: ServerSettings
    allow_stored: bool = False  # answers that the upstream keeps, and conversations of which it has the beginning
    allow_unscanned: bool = False  # parts that no one can judge


@dataclass(frozen=True, slots=True)
class ModeratedRequest:
    """What the proxy has to know of a request, in the words of chat, and the body that goes upstream."""

    model: str
    messages: list[dict[str, Any]]
    forward: dict[str, Any]
    stream: bool = False
    choices: int = 1
    include_usage: bool = False
    moderation: ModerationAsk | None = None
    more: tuple[list[dict[str, Any]], ...] = ()  # further conversations; `choices` are shared out evenly, in order
    echo: Mapping[str, Any] = dataclass_field(default_factory=dict)  # its own fields that an answer may repeat
    unscanned: tuple[str, ...] = ()  # what reaches the model beside the messages and nobody can judge

    @property
    def conversations(self) -> list[list[dict[str, Any]]]:
        return [self.messages, *self.more]


# Fields with which known gateways let a request pick its upstream or its credential. Ours are set by
# the operator alone, and an upstream that is such a gateway must not be steered through us either.
UPSTREAM_FIELDS = re.compile(
    r"api_(base|key|type|version)|(azure|litellm|vertex|aws)_.*|custom_llm_provider|deployment_id|user_config"
    r"|((base|target|upstream|server)_?)?url|endpoint|extra_(body|headers|query)|default_(headers|query)"
    r"|model_list|(\w+_)?fallbacks|mock_response|headers|organization|proxy|upstream|client|router_settings"
)


@functools.lru_cache(maxsize=1024)
def _chooses_upstream(name: str) -> bool:
    return UPSTREAM_FIELDS.fullmatch(name.lower().replace("-", "_")) is not None


JSON_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer"}


def refuse_routing(body: Mapping[str, Any]) -> None:
    """Raises BadRequest where a request would choose its upstream."""
    if any(map(_chooses_upstream, body)):
        raise BadRequest(400, "This server's upstream is not the request's to choose.", None, "unsupported_parameter")


def refuse_stored(body: Mapping[str, Any], terms: Terms) -> None:
    """Raises BadRequest where the upstream would keep an answer and that is not allowed."""
    if field(body, "store", bool) and not terms.allow_stored:
        message = (
            "Stored answers could be read back without having been moderated; leave out 'store' or set it to false."
        )
        refuse_setting(message, "store", "policy.allow_stored")


def refuse_setting(message: str, param: str, setting: str) -> NoReturn:
    """What only the operator can allow. Raises BadRequest that names the setting."""
    raise BadRequest(400, f"{message} The server allows it with {setting} = true.", param, "unsupported_value")


def field(table: Mapping[str, Any], name: str, kind: type[T], where: str = "") -> T | None:
    """A field of that type exactly (true is no integer), or None where it is missing or null."""
    value = table.get(name)
    if value is not None and type(value) is not kind:
        param = f"{where}{name}"
        raise BadRequest(400, f"Invalid type for '{param}': expected {JSON_NAMES[kind]}.", param, "invalid_type")
    return value


def required(table: Mapping[str, Any], name: str, kind: type[T], where: str = "") -> T:
    value = field(table, name, kind, where)
    if value is None:
        param = f"{where}{name}"
        raise BadRequest(400, f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    return value


def objects(table: Mapping[str, Any], name: str, most: int, where: str = "") -> list[dict[str, Any]]:
    """A list of objects and no more than `most`; empty where it is missing."""
    items, param = field(table, name, list, where) or [], f"{where}{name}"
    if len(items) > most:
        message, limit = f"Invalid '{param}': more than {most} items.", LIMIT_OF_LIST.get(name, Limit.PARTS)
        raise BadRequest(400, message, param, "array_above_max_length", limit)
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            param = f"{param}[{index}]"
            raise BadRequest(400, f"Invalid type for '{param}': expected an object.", param, "invalid_type")
    return items


def model_of(body: Mapping[str, Any]) -> str:
    model = required(body, "model", str)
    # A model that is a URL is how some gateways are sent elsewhere.
    if not MODEL.fullmatch(model) or "://" in model:
        message = f"Invalid 'model': expected a name of 1 to {MAX_MODEL_CHARS} characters, without control characters."
        raise BadRequest(400, message, "model", "invalid_value")
    return model


def choices_of(body: Mapping[str, Any], most: int) -> int:
    n = field(body, "n", int)
    if n is not None and not 1 <= n <= most:
        code = "integer_below_min_value" if n < 1 else "integer_above_max_value"
        limit = Limit.CHOICES if n > most else ""
        raise BadRequest(400, f"Invalid 'n': expected an integer from 1 to {most}.", "n", code, limit)
    return n or 1


def moderation_of(ask: dict[str, Any] | None) -> ModerationAsk | None:
    """This one is ours to answer, so its shape is held to strictly: a misspelt `block` must not pass as `score`."""
    if ask is None:
        return None
    only(ask, ("model", "policy"), "moderation")
    policy = field(ask, "policy", dict, "moderation.") or {}
    only(policy, ("input", "output"), "moderation.policy")
    return ModerationAsk(
        model=required(ask, "model", str, "moderation."),
        input=_mode(policy, "input"),
        output=_mode(policy, "output"),
    )


def _mode(policy: Mapping[str, Any], side: str) -> ModerationMode:
    where = f"moderation.policy.{side}"
    wish = field(policy, side, dict, "moderation.policy.")
    if wish is None:
        return "score"
    only(wish, ("mode",), where)
    mode = required(wish, "mode", str, f"{where}.")
    if mode not in ("score", "block"):
        param = f"{where}.mode"
        raise BadRequest(400, f"Invalid '{param}': expected 'score' or 'block'.", param, "invalid_value")
    return cast(ModerationMode, mode)


def only(table: Mapping[str, Any], known: tuple[str, ...], param: str) -> None:
    if not table.keys() <= set(known):
        names = " and ".join(f"'{name}'" for name in known)
        raise BadRequest(400, f"Unknown field in '{param}': it takes {names}.", param, "unknown_parameter")
