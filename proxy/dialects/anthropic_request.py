"""A chat request in the words of Anthropic's Messages. docs/dialects.md has the table of its fields.

Format: https://docs.anthropic.com/en/api/messages
"""

import re
from typing import Any

from adapters import Endpoint
from proxy.dialects.call import UpstreamCall
from proxy.dialects.chat_fields import ChatFields, ToolChoice
from proxy.dialects.turns import Call, Conversation, Media, Part, Result, Text, read_turns
from proxy.request_body import BadRequest
from proxy.request_fields import ModeratedRequest

# Models that think within a budget of tokens; later ones decide for themselves, by effort.
BUDGETED = re.compile(r"(.*/)?claude-(3-.*|(opus|sonnet|haiku)-4(-[0-5])?(-\d{8}|-latest)?)")
# Models that sample as they are told. Later ones refuse the whole request.
SAMPLED = re.compile(BUDGETED.pattern + r"|(.*/)?claude-(opus|sonnet)-4-6.*|(?!(.*/)?claude-).*")
SAMPLING = ("temperature", "top_p", "top_k")
BUDGETS = {"minimal": 1024, "low": 1024, "medium": 4096, "high": 16_384, "xhigh": 24_576}  # tokens
MIN_BUDGET = 1024
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
CHOICES = {"auto": "auto", "none": "none", "required": "any", "one": "tool"}
NO_PARAMETERS = {"type": "object", "properties": {}}


def anthropic_call(request: ModeratedRequest, endpoint: Endpoint, default_max_tokens: int) -> UpstreamCall:
    """`default_max_tokens`: the dialect wants a limit, and chat does not. Raises BadRequest."""
    fields = ChatFields(request.forward, "Anthropic's Messages")
    conversation = read_turns(request.messages)
    if request.choices > 1:
        fields.refuse("n", "it gives one answer a request")
    given = fields.max_tokens()
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": given or default_max_tokens,
        "messages": [{"role": role, "content": [_part(part) for part in parts]} for role, parts in conversation.turns],
    }
    if conversation.system:
        body["system"] = [{"type": "text", "text": text} for text in conversation.system]
    _think(body, fields, conversation, given)
    _sample(body, fields)
    _tools(body, fields)
    if user := fields.take("user", str) or fields.take("safety_identifier", str):
        body["metadata"] = {"user_id": user}
    if request.stream:
        body["stream"] = True
    fields.drop("seed", "safety_identifier")
    fields.finish()
    dropped = (*fields.dropped, *conversation.dropped)
    return UpstreamCall(endpoint, endpoint.upstream_path, body, moves_key=True, dropped=dropped)


def _sample(body: dict[str, Any], fields: ChatFields) -> None:
    if not SAMPLED.fullmatch(body["model"]):
        fields.drop(*SAMPLING)
    given = {
        "temperature": fields.number("temperature", 0, 1),
        "top_p": fields.number("top_p", 0, 1),
        "top_k": fields.take("top_k", int),
        "stop_sequences": fields.stops() or None,
    }
    body |= {name: value for name, value in given.items() if value is not None}
    schema = fields.schema()
    if schema == {}:
        fields.refuse("response_format", "it gives JSON by a json_schema only")
    if schema is not None:
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}


def _think(body: dict[str, Any], fields: ChatFields, conversation: Conversation, given: int | None) -> None:
    """Within a budget, a turn that called tools must be sent with its signed thought, which chat does not keep."""
    effort = fields.effort()
    if effort is None:
        return
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
    elif not BUDGETED.fullmatch(body["model"]):
        body["thinking"] = {"type": "adaptive", "display": "summarized"}
        body["output_config"] = {"effort": EFFORTS[effort]}
    elif conversation.ends_with_results:
        fields.dropped.append("reasoning_effort")
    elif given is None:
        body["max_tokens"] += BUDGETS[effort]
        body["thinking"] = {"type": "enabled", "budget_tokens": BUDGETS[effort]}
    elif given > MIN_BUDGET:
        body["thinking"] = {"type": "enabled", "budget_tokens": min(BUDGETS[effort], given - 1)}
    else:
        fields.refuse("reasoning_effort", f"it thinks with a max_tokens above {MIN_BUDGET} only")


def _tools(body: dict[str, Any], fields: ChatFields) -> None:
    functions, choice, is_parallel = fields.tools(), fields.tool_choice(), fields.take("parallel_tool_calls", bool)
    if not functions:
        return
    body["tools"] = [_tool(function) for function in functions]
    if choice is None and is_parallel is None:
        return
    choice = choice or ToolChoice("auto")
    chosen: dict[str, Any] = {"type": CHOICES[choice.mode]}
    if choice.mode == "one":
        chosen["name"] = choice.name
    if is_parallel is False and choice.mode != "none":
        chosen["disable_parallel_tool_use"] = True
    body["tool_choice"] = chosen


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    tool = {"name": function["name"], "input_schema": function.get("parameters") or NO_PARAMETERS}
    if function.get("description"):
        tool["description"] = function["description"]
    if function.get("strict") is True:
        tool["strict"] = True
    return tool


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Call):
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": part.arguments}
    if isinstance(part, Result):
        return {"type": "tool_result", "tool_use_id": part.id, "content": part.text}
    return {"type": "image", "source": _source(part)}


def _source(media: Media) -> dict[str, Any]:
    if media.url:
        return {"type": "url", "url": media.url}
    if not media.type.startswith("image/"):
        message = f"'{media.where}' is a part that this model's upstream does not take."
        raise BadRequest(400, message, media.where, "invalid_value")
    return {"type": "base64", "media_type": media.type, "data": media.data}
