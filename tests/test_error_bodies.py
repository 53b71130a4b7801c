"""An error in each dialect."""

import pytest

from proxy.error_bodies import anthropic_body, openai_body
from proxy.errors import ApiError


def test_openais_shape() -> None:
    assert openai_body(ApiError(400, "No.", param="n", code="c")) == {
        "error": {"message": "No.", "type": "invalid_request_error", "param": "n", "code": "c"}
    }


@pytest.mark.parametrize(
    ("status", "given", "kind"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "upstream_error", "authentication_error"),
        (403, "upstream_error", "permission_error"),
        (404, "x", "not_found_error"),
        (415, "x", "invalid_request_error"),
        (429, "x", "rate_limit_error"),
        (500, "api_error", "api_error"),
        (502, "api_error", "api_error"),
        (503, "api_error", "overloaded_error"),
        (529, "overloaded_error", "overloaded_error"),
        (400, "not_found_error", "not_found_error"),
    ],
)
def test_anthropics_shape(status: int, given: str, kind: str) -> None:
    body = anthropic_body(ApiError(status, "No.", given, extra={"innererror": {}}))
    assert body == {"type": "error", "error": {"type": kind, "message": "No.", "innererror": {}}}
