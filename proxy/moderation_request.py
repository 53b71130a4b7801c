"""Requests for the guard's own verdict: /v1/moderations, and LiteLLM's generic guardrail. Nothing goes upstream."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.limits import Limit
from proxy.request_body import BadRequest
from proxy.request_fields import Terms, field, objects, required

MAX_INPUTS = 1024
Messages = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ModerationRequest:
    """What is to be judged: a verdict for each conversation."""

    conversations: list[Messages]
    model: str = ""
    unscanned: tuple[str, ...] = ()


def read_moderation_request(body: Mapping[str, Any], terms: Terms) -> ModerationRequest:
    """`input`: a string, strings, parts of one input, or a conversation. Raises BadRequest."""
    given = body.get("input")
    model = field(body, "model", str) or ""
    if isinstance(given, str):
        return ModerationRequest([_asked(given)], model)
    given = required(body, "input", list)
    if not given:
        raise BadRequest(400, "Invalid 'input': expected at least one.", "input", "empty_array")
    if len(given) > MAX_INPUTS:
        message = f"Invalid 'input': more than {MAX_INPUTS} items."
        raise BadRequest(400, message, "input", "array_above_max_length", Limit.INPUTS)
    if all(isinstance(one, str) for one in given):
        return ModerationRequest([_asked(one) for one in given], model)
    objects(body, "input", MAX_INPUTS)
    if all("role" in one for one in given):
        return ModerationRequest([given], model)
    text, unscanned = _text_of_parts(given, terms)
    return ModerationRequest([_asked(text)], model, unscanned)


def _text_of_parts(parts: Messages, terms: Terms) -> tuple[str, tuple[str, ...]]:
    texts, unscanned = [], []
    for index, part in enumerate(parts):
        where = f"input[{index}]"
        kind = required(part, "type", str, f"{where}.")
        if kind == "text":
            texts.append(required(part, "text", str, f"{where}."))
        elif terms.allow_unscanned:
            unscanned.append(f"{where} ({'image_url' if kind == 'image_url' else 'unknown type'})")
        else:
            message = f"'{where}' cannot be read by the guard: only text can."
            raise BadRequest(400, message, where, "unscannable_content")
    return "".join(texts), tuple(unscanned)


@dataclass(frozen=True, slots=True)
class GuardrailRequest:
    """LiteLLM asks before it calls a model ("request"), or before it hands an answer on ("response")."""

    conversations: list[Messages]
    has_images: bool = False


def read_guardrail_request(body: Mapping[str, Any], terms: Terms) -> GuardrailRequest:
    """Each text is judged, and the conversation that they are of, where it is given. Raises BadRequest."""
    sort = required(body, "input_type", str)
    if sort not in ("request", "response"):
        message = "Invalid 'input_type': expected 'request' or 'response'."
        raise BadRequest(400, message, "input_type", "invalid_value")
    texts = field(body, "texts", list) or []
    if len(texts) > MAX_INPUTS or not all(isinstance(text, str) for text in texts):
        message = f"Invalid 'texts': expected an array of strings, {MAX_INPUTS} at most."
        raise BadRequest(400, message, "texts", "invalid_type")
    before = objects(body, "structured_messages", terms.limits.max_messages)
    calls = objects(body, "tool_calls", MAX_INPUTS)
    has_images = bool(field(body, "images", list))
    if sort == "request":
        asked = [_asked(text) for text in texts]
        return GuardrailRequest([*asked, *([before] if before else [])], has_images)
    answers: Messages = [{"role": "assistant", "content": text} for text in texts]
    answers += [{"role": "assistant", "content": None, "tool_calls": [call]} for call in calls]
    return GuardrailRequest([[*before, answer] for answer in answers], has_images)


def _asked(text: str) -> Messages:
    return [{"role": "user", "content": text}]
