"""A request to /v1/chat/completions."""

from collections.abc import Mapping
from typing import Any

from proxy.request_body import BadRequest
from proxy.request_fields import (
    MAX_PARTS,
    MAX_TOOLS,
    ModeratedRequest,
    Terms,
    choices_of,
    field,
    model_of,
    moderation_of,
    objects,
    refuse_routing,
    refuse_stored,
    required,
)


def read_chat_request(body: Mapping[str, Any], terms: Terms) -> ModeratedRequest:
    """The chat request in `body`. Every field that the guard relies on has its type. Raises BadRequest."""
    refuse_routing(body)
    refuse_stored(body, terms)
    for name in ("tools", "functions"):
        objects(body, name, MAX_TOOLS)
    stream_options = field(body, "stream_options", dict) or {}
    return ModeratedRequest(
        model=model_of(body),
        messages=_messages(body, terms.limits.max_messages),
        stream=field(body, "stream", bool) or False,
        choices=choices_of(body, terms.limits.max_choices),
        include_usage=field(stream_options, "include_usage", bool, "stream_options.") or False,
        moderation=moderation_of(field(body, "moderation", dict)),
        forward={name: value for name, value in body.items() if name != "moderation"},
    )


def _messages(body: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    required(body, "messages", list)
    messages = objects(body, "messages", most)
    if not messages:
        raise BadRequest(400, "Invalid 'messages': expected at least one.", "messages", "empty_array")
    for index, message in enumerate(messages):
        where = f"messages[{index}]."
        required(message, "role", str, where)
        if not isinstance(message.get("content"), str):
            _parts(message, where)
        objects(message, "tool_calls", MAX_TOOLS, where)
        field(message, "function_call", dict, where)
    return messages


def _parts(message: Mapping[str, Any], where: str) -> None:
    content = message.get("content")
    if content is not None and not isinstance(content, list):
        param = f"{where}content"
        raise BadRequest(
            400, f"Invalid type for '{param}': expected a string or an array of parts.", param, "invalid_type"
        )
    for index, part in enumerate(objects(message, "content", MAX_PARTS, where)):
        required(part, "type", str, f"{where}content[{index}].")
