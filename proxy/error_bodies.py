"""An error as the body that each dialect's clients read."""

from typing import Any

from proxy.errors import ApiError

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def openai_body(error: ApiError) -> dict[str, Any]:
    """{"error": {"message", "type", "param", "code", ...}}"""
    return error.body()


def anthropic_body(error: ApiError) -> dict[str, Any]:
    """{"type": "error", "error": {"type", "message", ...}}; `code` and `param` ride along for those who look."""
    known = "invalid_request_error" if error.status < 500 else "api_error"
    kind = error.type if error.type in ANTHROPIC_TYPES.values() else ANTHROPIC_TYPES.get(error.status, known)
    told = {"type": kind, "message": error.message, "param": error.param, "code": error.code}
    return {"type": "error", "error": {name: value for name, value in told.items() if value} | dict(error.extra)}
