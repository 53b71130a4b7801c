"""What an upstream's refusal becomes: its status and codes, and its own words only once they are judged."""

import json
from collections.abc import Mapping
from typing import Any

from adapters.base import Delta, Key, Kind
from proxy.classifier import Classifier
from proxy.errors import ApiError
from proxy.guard.protocol import GuardError
from proxy.policy import Policy
from proxy.upstream import UpstreamResponse
from proxy.verdicts import judge_text

# An error message is shown up to here.
MAX_MESSAGE_CHARACTERS = 2048
MAX_WORD_CHARACTERS = 64


async def refusal_of(
    response: UpstreamResponse, classifier: Classifier | None, policy: Policy, *, own_key: str | None
) -> ApiError:
    """The error for an answer with status 400 or more.

    `own_key`: the upstream was called with this key of ours, and what it says of that key is not
    the client's to read.
    """
    found = _error_of(await response.read_error())
    message = f"The upstream answered with status {response.status}."
    text = found.get("message")
    is_about_key = own_key is not None and (response.status in (401, 403) or own_key in str(text))
    if isinstance(text, str) and text and not is_about_key and classifier is not None:
        text = text[:MAX_MESSAGE_CHARACTERS]
        if await _is_harmless(text, classifier, policy):
            message = text
    return ApiError(
        response.status,
        message,
        type=_word(found.get("type") or found.get("status"), own_key) or "upstream_error",
        param=_word(found.get("param"), own_key),
        code=_word(found.get("code"), own_key),
        headers=response.headers,
    )


async def _is_harmless(text: str, classifier: Classifier, policy: Policy) -> bool:
    try:
        channel = await judge_text(Delta(Key(0, "error"), Kind.CONTENT, text), classifier, policy)
    except GuardError:
        return False
    return channel.flagged is None


def _error_of(body: bytes) -> Mapping[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]  # Gemini's, where it would have streamed a list
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else {"message": error}


def _word(value: object, own_key: str | None) -> str | None:
    """An identifier passes as it is; anything that could be prose does not."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    if own_key is not None and own_key in text:
        return None
    is_plain = text.isascii() and text.replace("_", "").replace(".", "").replace("[", "").replace("]", "").isalnum()
    return text if is_plain and len(text) <= MAX_WORD_CHARACTERS else None
