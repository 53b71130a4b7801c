"""A request to /v1/completions: each prompt is a conversation of one turn, which the answer continues."""

from collections.abc import Mapping
from typing import Any

from proxy.limits import Limit
from proxy.request_body import BadRequest
from proxy.request_fields import (
    ModeratedRequest,
    Terms,
    choices_of,
    field,
    model_of,
    moderation_of,
    refuse_routing,
    refuse_stored,
    required,
)

TOKEN_IDS = "Token ids cannot be read by the guard; send 'prompt' as a string or an array of strings."


def read_completion_request(body: Mapping[str, Any], terms: Terms) -> ModeratedRequest:
    """The request in `body`. Raises BadRequest.

    A `suffix` is what stands behind the answer: the model reads it, so the guard reads it with the prompt.
    """
    refuse_routing(body)
    refuse_stored(body, terms)
    prompts = _prompts(body, terms.limits.max_choices)
    each = choices_of(body, terms.limits.max_choices)
    if each * len(prompts) > terms.limits.max_choices:
        message = f"Invalid 'n': {each} answers to each of {len(prompts)} prompts, {terms.limits.max_choices} at most."
        raise BadRequest(400, message, "n", "integer_above_max_value", Limit.CHOICES)
    is_stream = field(body, "stream", bool) or False
    _check_candidates(body, each, terms.limits.max_choices, is_stream=is_stream)
    _check_flags(body)
    suffix = field(body, "suffix", str) or ""
    first, *others = [[{"role": "user", "content": prompt + suffix}] for prompt in prompts]
    stream_options = field(body, "stream_options", dict) or {}
    return ModeratedRequest(
        model=model_of(body),
        messages=first,
        more=tuple(others),
        stream=is_stream,
        choices=each * len(prompts),
        include_usage=field(stream_options, "include_usage", bool, "stream_options.") or False,
        moderation=moderation_of(field(body, "moderation", dict)),
        forward={name: value for name, value in body.items() if name != "moderation"},
    )


def _prompts(body: Mapping[str, Any], most: int) -> list[str]:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return [prompt]
    prompt = required(body, "prompt", list)
    if not prompt:
        raise BadRequest(400, "Invalid 'prompt': expected at least one.", "prompt", "empty_array")
    for index, one in enumerate(prompt):
        if type(one) in (int, list):
            raise BadRequest(400, TOKEN_IDS, "prompt", "unscannable_content")
        if not isinstance(one, str):
            param = f"prompt[{index}]"
            raise BadRequest(400, f"Invalid type for '{param}': expected a string.", param, "invalid_type")
    if len(prompt) > most:
        message = f"Invalid 'prompt': more than {most} items."
        raise BadRequest(400, message, "prompt", "array_above_max_length", Limit.CHOICES)
    return prompt


def _check_candidates(body: Mapping[str, Any], each: int, most: int, *, is_stream: bool) -> None:
    """`best_of` answers are made and `n` of them sent, so none can be sent before all are made."""
    best_of = field(body, "best_of", int)
    if best_of is None:
        return
    if not each <= best_of <= most:
        message = f"Invalid 'best_of': expected an integer from 'n' to {most}."
        raise BadRequest(400, message, "best_of", "invalid_value")
    if is_stream and best_of > each:
        raise BadRequest(400, "Invalid 'best_of': a stream cannot wait for the best.", "best_of", "invalid_value")


def _check_flags(body: Mapping[str, Any]) -> None:
    """What the guard relies on not: it must only be of a type that no server reads as something else."""
    field(body, "echo", bool)
    field(body, "logprobs", int)
    for name in ("prompt_embeds", "prompt_token_ids"):
        if body.get(name) is not None:
            raise BadRequest(400, f"'{name}' cannot be read by the guard: only text can.", name, "unscannable_content")
