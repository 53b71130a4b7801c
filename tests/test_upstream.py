"""Where requests go, what of their headers goes with them, and how an answer is read."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import pytest

from proxy.deadline import Deadline
from proxy.errors import Fault
from proxy.settings import Dialect, UpstreamSettings
from proxy.upstream import Upstream, UpstreamResponse, reader
from proxy.upstream_connection import MAX_READ_BYTES
from tests.fakes import RawUpstream, ScriptedUpstream, framed
from tests.sockets import PATIENCE_SECONDS


@asynccontextmanager
async def upstream_at(url: str, **values: Any) -> AsyncIterator[Upstream]:
    with closing(Upstream(UpstreamSettings(base_url=url, **values))) as upstream:
        yield upstream


@asynccontextmanager
async def answered(raw: bytes, **fields: Any) -> AsyncIterator[UpstreamResponse]:
    async with RawUpstream(raw, **fields).running() as server, upstream_at(server.url) as upstream:
        response = await upstream.open("POST", "/x", {}, body=b"{}")
        yield response
        response.close()


@pytest.mark.parametrize(
    ("base", "query", "url"),
    [
        ("https://api.test", "", "https://api.test/v1/chat/completions"),
        ("https://api.test/", "", "https://api.test/v1/chat/completions"),
        ("https://api.test/v1", "a=1", "https://api.test/v1/chat/completions?a=1"),
        ("https://api.test/openai/v1/", "", "https://api.test/openai/v1/chat/completions"),
        ("https://api.test/v1?k=%20+", "a=%zz", "https://api.test/v1/chat/completions?k=%20+&a=%zz"),
        ("https://api.test?k", "", "https://api.test/v1/chat/completions?k"),
    ],
)
async def test_a_base_url_takes_any_form_and_queries_stay(base: str, query: str, url: str) -> None:
    async with upstream_at(base) as upstream:
        assert str(upstream.url("/chat/completions", query)) == url


def test_an_upstream_needs_a_base_url() -> None:
    with pytest.raises(ValueError, match="base URL"):
        Upstream(UpstreamSettings())


async def test_azure_gets_its_key_under_its_own_name() -> None:
    async with upstream_at("https://x.openai.azure.com/openai/v1", api_key="sk-ours") as upstream:
        headers = upstream._headers({"authorization": "Bearer sk-theirs"}, body=b"{}")
    assert headers["api-key"] == "sk-ours"
    assert "authorization" not in headers


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_a_body_is_read_to_its_end(framing: str) -> None:
    async with answered(framed(b"x" * 1000, framing)) as response:
        assert await response.read_all(1000, 5) == b"x" * 1000
    async with answered(framed(b"x" * 1000, framing)) as response:
        with pytest.raises(Fault):
            await response.read_all(999, 5)


async def test_what_came_before_a_break_is_read_before_the_break_is_told() -> None:
    async with answered(framed(b"x" * 1000, "length")[:-1]) as response:
        await asyncio.sleep(0.05)  # all is here, and so is the end of it
        assert await read_of(response, 999) == b"x" * 999
        for _ in range(2):
            with pytest.raises(Fault, match="BrokenAnswer"):
                await response.read()


async def read_of(response: UpstreamResponse, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += await response.read()
    return found


async def test_a_body_that_does_not_end_in_time_is_a_fault() -> None:
    async with answered(framed(b"x" * 10, "length")[:-1], stays=True) as response:
        with pytest.raises(Fault):
            await response.read_all(1000, 0.05)


@pytest.mark.parametrize(("settings", "expected"), [({"first_byte_seconds": 0.1}, 504), ({}, 502)])
async def test_an_upstream_that_says_nothing_is_slow_and_one_that_closes_is_gone(
    settings: dict[str, float], expected: int
) -> None:
    server = RawUpstream(stays="first_byte_seconds" in settings)
    async with server.running(), upstream_at(server.url, **settings) as upstream:
        with pytest.raises(Fault) as caught:
            await upstream.open("POST", "/x", {}, body=b"{}")
        assert caught.value.status == expected
        assert server.hits == 1
        await server.closed.wait()


async def test_a_connection_serves_again_only_after_a_clean_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.upstream.END_SECONDS", PATIENCE_SECONDS)
    scripted = ScriptedUpstream([b"data: [DONE]\n\n"])
    async with scripted.running(), upstream_at(scripted.url) as upstream:
        ports = set()
        for is_finished in (True, True, False, True):
            response = await upstream.open("POST", "/x", {}, body=b"{}")
            assert await response.read() == b"data: [DONE]\n\n"
            connection = response.body._connection
            assert connection is not None
            assert connection.transport is not None
            ports.add(connection.transport.get_extra_info("sockname")[1])
            if is_finished:
                await response.finish()
            response.close()
    assert len(ports) <= 2


# The reader's clocks.


class Source:
    """An answer that comes in parts: each so long after the one before was read."""

    def __init__(self, *pauses: float) -> None:
        self._pauses = deque(pauses)
        self._due: float | None = None

    async def read(self) -> bytes:
        if not self._pauses:
            return b""
        self._due = self._due or time.monotonic() + self._pauses[0]
        if (wait := self._due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        self._due = None
        self._pauses.popleft()
        return b"x"


class Endless(Source):
    """More is always there."""

    async def read(self) -> bytes:
        return b"x"


async def read_all(read: Any) -> None:
    while await read():
        pass


def reading(source: Source, **limits: float) -> Any:
    return reader(source, UpstreamSettings(**limits), Deadline())  # type: ignore[arg-type]


async def test_silence_ends_at_the_idle_deadline_and_bytes_put_it_off() -> None:
    read = reading(Source(0.2, 0.2, 0.2, 3600), idle_seconds=0.5)
    for _ in range(3):
        assert await read() == b"x"
    with pytest.raises(Fault) as caught:
        await read()
    assert caught.value.failure.code == "upstream_timeout"


async def test_an_answer_ends_at_the_total_deadline_though_bytes_always_wait() -> None:
    read = reading(Endless(), total_seconds=0.05)
    with pytest.raises(Fault) as caught:
        await read_all(read)
    assert caught.value.failure.code == "total_timeout"


@pytest.mark.parametrize("cut_at", [None, 900_000])
async def test_a_burst_is_read_in_steps_that_do_not_hold_up_the_loop(cut_at: int | None) -> None:
    body = b"x" * 1_000_000
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
    async with answered(head + body[:cut_at]) as response:
        sizes = []
        with suppress(Fault):
            while chunk := await response.read():
                sizes.append(len(chunk))
    assert max(sizes) <= MAX_READ_BYTES
    assert sum(sizes) == len(body[:cut_at])


THEIRS = {"authorization": "Bearer sk-theirs", "x-goog-api-key": "never looked at"}


@pytest.mark.parametrize(("dialect", "name"), [("anthropic", "x-api-key"), ("gemini", "x-goog-api-key")])
async def test_a_key_goes_where_the_dialect_looks_for_it(dialect: Dialect, name: str) -> None:
    async with upstream_at("http://h", dialect=dialect, api_key="sk-ours") as upstream:
        headers = upstream._headers(THEIRS, moves_key=True)
    assert headers[name] == "sk-ours"
    assert "sk-theirs" not in str(headers)
    async with upstream_at("http://h", dialect=dialect) as upstream:
        headers = upstream._headers(THEIRS, moves_key=True)
        assert headers[name] == "sk-theirs"
        assert "authorization" not in headers
        assert name not in upstream._headers({"authorization": "Basic sk-theirs"}, moves_key=True)


@pytest.mark.parametrize(("dialect", "prefix"), [("openai", "/v1"), ("anthropic", "/v1"), ("gemini", "/v1beta")])
async def test_a_bare_host_gets_the_prefix_of_its_dialect(dialect: Dialect, prefix: str) -> None:
    async with upstream_at("http://h", dialect=dialect) as upstream:
        assert str(upstream.url("/models", "")) == f"http://h{prefix}/models"
