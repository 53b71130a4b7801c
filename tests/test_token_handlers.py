"""The count of a request's tokens."""

from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from tests.fakes import ScriptedUpstream
from tests.servers import weir
from tests.sockets import ask, http_request

HELLO: Any = [{"role": "user", "content": "hello"}]
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.test/a.png"}}


def upstream(said: bytes, **fields: Any) -> ScriptedUpstream:
    return ScriptedUpstream([said], content_type="application/json", **fields)


async def count(said: bytes, *, dialect: str = "anthropic", messages: Any = HELLO, **fields: Any) -> tuple[int, Any]:
    """What the real client gets, and what the upstream saw."""
    async with (
        weir(upstream(said, **fields), upstream__dialect=dialect) as server,
        AsyncAnthropic(base_url=server.url, api_key="sk-client", max_retries=0) as api,
    ):
        counted = await api.messages.count_tokens(model="claude-x", messages=messages)
        return counted.input_tokens, server.upstream.requests


async def test_the_number_comes_back_and_nothing_else() -> None:
    tokens, [seen] = await count(b'{"input_tokens": 12, "said": "CANARY"}')
    assert tokens == 12
    assert (seen["method"], seen["path"]) == ("POST", "/v1/messages/count_tokens")
    assert b"hello" in seen["body"]
    async with weir(upstream(b'{"input_tokens": 12, "said": "CANARY"}'), upstream__dialect="anthropic") as server:
        body = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
        reply = await ask(server.url, http_request(body, path="/v1/messages/count_tokens"))
    assert reply.body == b'{"input_tokens": 12}'
    assert reply.headers["x-weir-scanned"] == "none"


async def test_an_image_is_counted() -> None:
    tokens, _ = await count(b'{"input_tokens": 5}', messages=[{"role": "user", "content": [IMAGE]}])
    assert tokens == 5


@pytest.mark.parametrize("dialect", ["openai", "gemini"])
async def test_an_upstream_of_another_dialect_counts_nothing(dialect: str) -> None:
    with pytest.raises(anthropic.NotFoundError, match="dialect anthropic"):
        await count(b'{"input_tokens": 5}', dialect=dialect)


@pytest.mark.parametrize(
    "said",
    [b"", b"[]", b"{}", b'{"input_tokens":"CANARY"}', b'{"input_tokens":-1}', b'{"input_tokens":true}', b"[" * 9999,
     b'{"input_tokens":%d}' % (1 << 80), b" " * 100_000],
)  # fmt: skip
async def test_what_is_no_number_is_an_error(said: bytes) -> None:
    with pytest.raises(anthropic.InternalServerError) as caught:
        await count(said)
    assert caught.value.status_code == 502
    assert "CANARY" not in str(caught.value)


async def test_an_error_keeps_its_status_and_loses_its_words() -> None:
    with pytest.raises(anthropic.RateLimitError) as caught:
        await count(b'{"type":"error","error":{"type":"rate_limit_error","message":"CANARY"}}', status=429)
    assert "CANARY" not in str(caught.value)


async def test_a_wrong_request_asks_nobody() -> None:
    with pytest.raises(anthropic.BadRequestError):
        await count(b'{"input_tokens": 5}', messages=[{"role": "CANARY", "content": "x"}])
