"""Which door leads to which upstream."""

import pytest

from adapters import ENDPOINTS, TRANSLATED
from proxy.dialects import endpoint_of, stored_call
from proxy.errors import ApiError
from proxy.settings import Dialect, UpstreamSettings
from tests.dialects.requests import CHAT, HELLO, call

SERVED: dict[Dialect, set[str]] = {
    "openai": set(ENDPOINTS),
    "anthropic": {CHAT, "/v1/messages"},
    "gemini": {CHAT},
}


@pytest.mark.parametrize("dialect", list(SERVED))
@pytest.mark.parametrize("path", list(ENDPOINTS))
def test_pairs(dialect: Dialect, path: str) -> None:
    if path not in SERVED[dialect]:
        with pytest.raises(ApiError, match=f"speaks {dialect}") as caught:
            endpoint_of(path, dialect)
        assert (caught.value.status, caught.value.code) == (404, "unsupported_endpoint")
        assert CHAT in caught.value.message
    else:
        assert endpoint_of(path, dialect) is TRANSLATED.get((dialect, path), ENDPOINTS[path])


def test_what_needs_no_translation_goes_on_as_it_came() -> None:
    asked = call("openai", anything="x")
    assert asked.body == {"model": "gpt-5", "messages": HELLO, "anything": "x"}
    assert (asked.path, asked.moves_key, asked.dropped) == ("/chat/completions", False, ())


def test_what_is_kept_is_read_back_from_its_own_dialect_alone() -> None:
    asked = stored_call("/v1/responses", "/responses/resp_1", "a=b", UpstreamSettings())
    assert (asked.path, asked.body, asked.query) == ("/responses/resp_1", None, "a=b")
    with pytest.raises(ApiError):
        stored_call("/v1/responses", "/responses/resp_1", "", UpstreamSettings(dialect="gemini"))
