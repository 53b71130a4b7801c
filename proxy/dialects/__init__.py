"""Upstreams that do not speak the dialect of the door: requests, rewritten. `adapters` reads their answers.

Bodies in, bodies out: nothing here waits or fetches. A converter library would do the same for the fields
(LiteLLM knows more of them), but it sends and streams by itself, so texts would pass where we cannot judge them.
"""

from adapters import ENDPOINTS, TRANSLATED, Endpoint
from proxy.dialects.anthropic_request import anthropic_call
from proxy.dialects.call import UpstreamCall
from proxy.dialects.gemini_request import gemini_call
from proxy.errors import ApiError
from proxy.request_fields import ModeratedRequest
from proxy.settings import Dialect, UpstreamSettings

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
# Doors that need no translation. Many servers of OpenAI's dialect have Anthropic's beside it.
NATIVE: dict[Dialect, frozenset[str]] = {
    "openai": frozenset(ENDPOINTS),
    "anthropic": frozenset({MESSAGES}),
    "gemini": frozenset(),
}


def endpoint_of(path: str, dialect: Dialect) -> Endpoint:
    """How an upstream of that dialect is asked what clients ask at `path`. Raises ApiError (404)."""
    if path in NATIVE[dialect]:
        return ENDPOINTS[path]
    if found := TRANSLATED.get((dialect, path)):
        return found
    served = " or ".join(sorted({CHAT, *NATIVE[dialect]}))
    message = f"The model's upstream speaks {dialect}, and {path} cannot be told in it. Use {served}."
    raise ApiError(404, message, code="unsupported_endpoint")


def call_of(request: ModeratedRequest, path: str, query: str, upstream: UpstreamSettings) -> UpstreamCall:
    """What is sent for a request that came in at `path`. Raises ApiError, BadRequest."""
    endpoint = endpoint_of(path, upstream.dialect)
    if path in NATIVE[upstream.dialect]:
        return UpstreamCall(endpoint, endpoint.upstream_path, request.forward, query)
    if upstream.dialect == "anthropic":
        return anthropic_call(request, endpoint, upstream.default_max_tokens)
    return gemini_call(request, endpoint)


def stored_call(path: str, stored: str, query: str, upstream: UpstreamSettings) -> UpstreamCall:
    """What is read back of an answer that the upstream keeps. Raises ApiError."""
    return UpstreamCall(endpoint_of(path, upstream.dialect), stored, None, query)
