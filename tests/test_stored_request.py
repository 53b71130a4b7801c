"""Reading an answer back."""

import pytest

from proxy.errors import ApiError
from proxy.stored_request import UNSEEN, read_stored_request


@pytest.mark.parametrize(
    ("query", "stream"),
    [
        ([], False),
        ([("stream", "false")], False),
        ([("stream", "true"), ("include_obfuscation", "false")], True),
        ([("include[]", "a"), ("include[]", "b")], False),
    ],
)
def test_a_query_says_whether_to_stream(query: list[tuple[str, str]], stream: bool) -> None:
    request = read_stored_request(query)
    assert (request.stream, request.unscanned) == (stream, UNSEEN)


@pytest.mark.parametrize(
    "query",
    [
        [("stream", "true"), ("stream", "false")],
        [("stream", "1")],
        [("starting_after", "3"), ("stream", "true")],
        [("api_base", "http://x")],
        [("Stream", "true")],
    ],
)
def test_a_query_of_two_meanings_is_refused(query: list[tuple[str, str]]) -> None:
    with pytest.raises(ApiError) as caught:
        read_stored_request(query)
    assert caught.value.status == 400
