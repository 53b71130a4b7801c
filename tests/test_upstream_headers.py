"""What passes between a client and an upstream beside the bodies."""

import pytest

from proxy.upstream_headers import credentials, moved_key, request_headers, response_headers


def test_requests_keep_what_is_listed() -> None:
    client = {"User-Agent": "u", "Cookie": "c", "X-Stainless-Lang": "python", "Host": "h", "Authorization": "Bearer k"}
    expected = {"user-agent": "u", "x-stainless-lang": "python", "accept-encoding": "identity"}
    assert request_headers(client, "openai") == request_headers(client, "gemini") == expected
    assert request_headers(client, "anthropic") == expected | {"anthropic-version": "2023-06-01"}
    assert request_headers({"anthropic-version": "x"}, "anthropic")["anthropic-version"] == "x"


def test_what_connection_names_stays_here() -> None:
    client = {"Connection": "x-title, authorization", "x-title": "t", "authorization": "Bearer k", "x-api-key": "k"}
    assert "x-title" not in request_headers(client, "openai")
    assert credentials(client) == {"x-api-key": "k"}
    assert moved_key(client, "x-goog-api-key") == {}


def test_answers_keep_what_is_listed_and_reads_as_no_prose() -> None:
    upstream = {"X-Request-Id": "req_1", "Retry-After": "5", "Set-Cookie": "c", "openai-model": "read \u201cthis\u201d"}
    assert response_headers(upstream) == {"x-request-id": "req_1", "retry-after": "5"}


@pytest.mark.parametrize(
    ("client", "moved"),
    [
        ({"authorization": "Bearer k"}, {"x-api-key": "k"}),
        ({"authorization": "bearer  k"}, {"x-api-key": "k"}),
        ({"authorization": "Bearer k", "x-api-key": "own"}, {"x-api-key": "own"}),
        ({"authorization": "Basic k"}, {}),
        ({"authorization": "Bearer"}, {}),
        ({"api-key": "k"}, {}),
        ({}, {}),
    ],
)
def test_a_key_is_moved_to_where_the_dialect_looks(client: dict[str, str], moved: dict[str, str]) -> None:
    assert moved_key(client, "x-api-key") == moved
