"""A chat request in the words of Gemini's generateContent. docs/dialects.md has the table of its fields.

Format: https://ai.google.dev/api/generate-content
"""

import re
from typing import Any

from adapters import Endpoint
from proxy.dialects.call import UpstreamCall
from proxy.dialects.chat_fields import ChatFields
from proxy.dialects.turns import Call, Media, Part, Result, Text, read_turns
from proxy.request_body import BadRequest
from proxy.request_fields import ModeratedRequest

# The model is a part of the path, so it must be nothing else.
MODEL = re.compile(r"(?:models/)?([A-Za-z0-9][A-Za-z0-9._-]{0,127})")
# Models that think within a budget of tokens; later ones by level.
BUDGETED = re.compile(r"gemini-2.*")
BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576}
LEVELS = {"none": "minimal", "minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}
# These want the signature of the thought behind a call back with it. Of a call that comes without (made
# elsewhere, or by a client that does not keep it) Google's documents let this word say so.
SIGNED = re.compile(r"gemini-(?![12]\b).*")
UNSIGNED = "skip_thought_signature_validator"
ROLES = {"user": "user", "assistant": "model"}
MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "one": "ANY"}


def gemini_call(request: ModeratedRequest, endpoint: Endpoint) -> UpstreamCall:
    """Raises BadRequest."""
    fields = ChatFields(request.forward, "Gemini")
    found = MODEL.fullmatch(request.model)
    if found is None:
        raise BadRequest(400, "Invalid 'model': not the name of a model of Gemini's.", "model", "invalid_value")
    model = found[1]
    conversation = read_turns(request.messages)
    body: dict[str, Any] = {"contents": [_turn(model, role, parts) for role, parts in conversation.turns]}
    if conversation.system:
        body["systemInstruction"] = {"parts": [{"text": text} for text in conversation.system]}
    _tools(body, fields)
    if config := _config(request, model, fields):
        body["generationConfig"] = config
    fields.drop("user", "safety_identifier")
    fields.finish()
    method, query = ("streamGenerateContent", "alt=sse") if request.stream else ("generateContent", "")
    dropped = (*fields.dropped, *conversation.dropped)
    path = f"{endpoint.upstream_path}/{model}:{method}"
    return UpstreamCall(endpoint, path, body, query, moves_key=True, dropped=dropped)


def _config(request: ModeratedRequest, model: str, fields: ChatFields) -> dict[str, Any]:
    given: dict[str, Any] = {
        "maxOutputTokens": fields.max_tokens(),
        "temperature": fields.number("temperature", 0, 2),
        "topP": fields.number("top_p", 0, 1),
        "topK": fields.take("top_k", int),
        "seed": fields.take("seed", int),
        "presencePenalty": fields.number("presence_penalty", -2, 2),
        "frequencyPenalty": fields.number("frequency_penalty", -2, 2),
        "stopSequences": fields.stops() or None,
        "candidateCount": request.choices if request.choices > 1 else None,
        "thinkingConfig": _thinking(model, fields.effort()),
    }
    fields.take("n", int)
    schema = fields.schema()
    if schema is not None:
        given |= {"responseMimeType": "application/json", "responseJsonSchema": schema or None}
    return {name: value for name, value in given.items() if value is not None}


def _thinking(model: str, effort: str | None) -> dict[str, Any] | None:
    if effort is None:
        return None
    is_shown = {"includeThoughts": True} if effort != "none" else {}
    if BUDGETED.fullmatch(model):
        return {"thinkingBudget": BUDGETS[effort], **is_shown}
    return {"thinkingLevel": LEVELS[effort], **is_shown}


def _tools(body: dict[str, Any], fields: ChatFields) -> None:
    functions, choice = fields.tools(), fields.tool_choice()
    if not functions:
        fields.take("parallel_tool_calls", bool)
        return
    if fields.take("parallel_tool_calls", bool) is False:
        fields.refuse("parallel_tool_calls", "it may always call several tools at once")
    body["tools"] = [{"functionDeclarations": [_declaration(function) for function in functions]}]
    if choice is None:
        return
    config: dict[str, Any] = {"mode": MODES[choice.mode]}
    if choice.mode == "one":
        config["allowedFunctionNames"] = [choice.name]
    body["toolConfig"] = {"functionCallingConfig": config}


def _declaration(function: dict[str, Any]) -> dict[str, Any]:
    declaration = {"name": function["name"]}
    if function.get("description"):
        declaration["description"] = function["description"]
    if function.get("parameters"):
        declaration["parametersJsonSchema"] = function["parameters"]
    return declaration


def _turn(model: str, role: str, parts: list[Part]) -> dict[str, Any]:
    written = [_part(part) for part in parts]
    calls = [part for part in written if "functionCall" in part]
    # One signature stands for all calls of a turn.
    if calls and SIGNED.fullmatch(model) and "thoughtSignature" not in calls[0]:
        calls[0]["thoughtSignature"] = UNSIGNED
    return {"role": ROLES[role], "parts": written}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    if isinstance(part, Call):
        call = {"functionCall": {"id": part.id, "name": part.name, "args": part.arguments}}
        return call | ({"thoughtSignature": part.signature} if part.signature else {})
    if isinstance(part, Result):
        # As it was judged: never read as JSON, whose escapes could spell something else.
        return {"functionResponse": {"id": part.id, "name": part.name, "response": {"output": part.text}}}
    return _media(part)


def _media(media: Media) -> dict[str, Any]:
    if media.url:
        message = f"'{media.where}' must be a data: URL: Gemini fetches no addresses."
        raise BadRequest(400, message, media.where, "invalid_value")
    return {"inlineData": {"mimeType": media.type, "data": media.data}}
