"""Which requests are turned away unread, and in which words."""

import pytest

from proxy.errors import TOO_MANY, ApiError, Fault
from proxy.shedding import Shedding, path_of
from tests.sockets import http_request, read_reply

PLAIN = http_request(stream=True)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"])
def test_a_plain_request_to_a_door_is_turned_away_in_the_shape_that_its_clients_read(path: str) -> None:
    told: list[tuple[str, str]] = []
    shedding = Shedding(lambda: Fault(TOO_MANY, 503).api_error(), lambda at, error: told.append((at, error.limit)))
    answer = shedding.answer(http_request(path=path))
    assert answer is not None
    reply = read_reply(answer)
    assert (reply.status, reply.headers["retry-after"], reply.error["code"]) == (503, "1", "overloaded")
    assert ("type" in reply.json) == (path == "/v1/messages")
    assert reply.is_complete
    assert told == [(path, "server.max_streams")]


def test_where_all_is_well_nobody_is() -> None:
    def told(_: str, __: ApiError) -> None:
        raise AssertionError

    assert Shedding(lambda: None, told).answer(PLAIN) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:-1],
        PLAIN + b"G",
        PLAIN.replace(b"POST ", b"GET "),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        http_request(path="/v1/models"),
        http_request(path="/v1/chat/completions?x=1"),
        http_request(path="/v1/chat/../chat/completions"),
        http_request(headers={"Transfer-Encoding": "chunked"}),
        http_request(headers={"Connection": "close"}),
        http_request(headers={"Expect": "100-continue"}),
        http_request(headers={"content-length": "3"}),
        http_request(headers={"X-Content-Length": "3"}),
        http_request(headers={"Content-Length": ""}),
        PLAIN.replace(b"\r\n", b"\r\n folded: 1\r\n", 1),
        PLAIN.replace(b"\r\n", b"\n", 1),
    ],
)
def test_whatever_is_in_doubt_goes_the_usual_way(data: bytes) -> None:
    assert path_of(PLAIN) is not None
    assert path_of(data) is None
