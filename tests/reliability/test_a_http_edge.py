"""Section A of docs/reliability.md: raw bytes that no library would send."""

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from tests.driver import WORDS, answer, body
from tests.e2e.test_streams import events
from tests.fakes import ScriptedUpstream
from tests.reliability.environment import ROOT, environment
from tests.servers import weir
from tests.sockets import PATIENCE_SECONDS, Client, ask, connected, http_request, read_reply, timed

CHUNKED = {"Content-Length": "", "Transfer-Encoding": "chunked"}
BODY = http_request().partition(b"\r\n\r\n")[2]
WHOLE = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)


def headed(headers: dict[str, str], data: bytes = BODY) -> bytes:
    return http_request(b"", headers=headers) + data


def replaced(old: bytes, new: bytes) -> bytes:
    raw = http_request()
    assert old in raw
    return raw.replace(old, new, 1)


LENGTH = b"Content-Length: %d\r\n" % len(BODY)
SMUGGLERS: dict[str, bytes] = {
    "length and chunks": headed(CHUNKED | {"Content-Length": "5"}, WHOLE + b"\r\n"),
    "two lengths": replaced(LENGTH, LENGTH + b"Content-Length: 5\r\n"),
    "two equal lengths": replaced(LENGTH, LENGTH * 2),
    "a list of lengths": headed({"Content-Length": f"{len(BODY)}, {len(BODY)}"}),
    "a signed length": headed({"Content-Length": f"+{len(BODY)}"}),
    "a negative length": headed({"Content-Length": "-1"}),
    "a length in hex": headed({"Content-Length": "0x10"}),
    "another encoding": headed(CHUNKED | {"Transfer-Encoding": "xchunked"}, WHOLE + b"\r\n"),
    "chunked, then another": headed(CHUNKED | {"Transfer-Encoding": "chunked, identity"}, WHOLE + b"\r\n"),
    "chunked twice": headed(CHUNKED | {"Transfer-Encoding": "chunked, chunked"}, WHOLE + b"\r\n"),
    "a tab before chunked": headed(CHUNKED | {"Transfer-Encoding": "\x0bchunked"}, WHOLE + b"\r\n"),
    "a space before the colon": replaced(b"Content-Length:", b"Content-Length :"),
    "a folded header": headed(CHUNKED | {"Transfer-Encoding": "\r\n chunked"}, WHOLE + b"\r\n"),
    "a bare line feed": replaced(b"\r\nContent-Type", b"\nContent-Type"),
    "a bare carriage return": replaced(b"\r\nContent-Type", b"\rContent-Type"),
    "a null byte": replaced(b"Host: 127", b"Host: 12\x007"),
    "two hosts": replaced(b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\nHost: localhost"),
    "chunks with HTTP/1.0": headed(CHUNKED, WHOLE + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a size with a sign": headed(CHUNKED, b"+" + WHOLE + b"\r\n"),
    "a size in 0x": headed(CHUNKED, b"0x" + WHOLE + b"\r\n"),
    "a chunk without its line end": headed(CHUNKED, WHOLE.replace(b"\r\n0\r\n", b"0\r\n") + b"\r\n"),
    "a size that overflows": headed(CHUNKED, b"1" + b"0" * 16 + WHOLE + b"\r\n"),
    "an extension with a line feed": headed(CHUNKED, WHOLE.replace(b"\r\n", b";a\nb\r\n", 1) + b"\r\n"),
    "a trailer with a line feed": headed(CHUNKED, WHOLE + b"X: a\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("name", SMUGGLERS)
async def test_a1_a_request_in_doubt_is_refused_and_what_stands_behind_it_never_read(name: str) -> None:
    upstream = ScriptedUpstream([body({"content": "hi"})], content_type="application/json")
    async with weir(upstream, server__request_seconds=1.0) as server, connected(server.url) as client:
        await client.send(SMUGGLERS[name] + http_request(headers={"X-Smuggled": "yes"}))
        async with asyncio.timeout(PATIENCE_SECONDS):
            raw = await client.closed()
        assert read_reply(raw).status == 400, raw
        assert raw.count(b"HTTP/1.") == 1
        assert upstream.requests == []


async def drip(client: Client, data: bytes) -> None:
    """A byte now and then, until nobody listens any more."""
    with suppress(ConnectionError):
        for at in range(len(data)):
            await client.send(data[at : at + 1])
            await asyncio.sleep(0.05)


async def dripped(url: str, whole: bytes, slow: bytes) -> None:
    async with connected(url) as client:
        await client.send(whole)
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            group.create_task(drip(client, slow))
            group.create_task(client.closed())


async def test_a8_heads_and_bodies_that_only_drip_are_closed_while_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.connections.IDLE_CONNECTION_SECONDS", 1.0)
    settings: Any = {"server__request_seconds": 1.0}
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-A: "
    start = http_request(b"", headers={"Content-Length": "9999"})
    async with weir(ScriptedUpstream(answer(WORDS)), **settings) as server:
        with timed():
            async with asyncio.TaskGroup() as group:
                for _ in range(40):
                    group.create_task(dripped(server.url, head, b"a" * 9999))
                    group.create_task(dripped(server.url, start, b" " * 9999))
                await asyncio.sleep(0.2)
                assert events(await ask(server.url, stream=True)).content == "".join(WORDS)
        assert len(server.upstream.requests) == 1


async def test_a9_a_flood_of_silent_connections_is_refused_and_streams_go_on() -> None:
    async with weir(ScriptedUpstream(answer(WORDS), pause=0.1), server__max_connections=40) as server:
        async with AsyncExitStack() as stack:
            asked = await stack.enter_async_context(connected(server.url))
            await asked.send(http_request(stream=True))
            await asked.read_until(b"one")
            silent = [await stack.enter_async_context(connected(server.url)) for _ in range(240)]
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert [await client.closed() for client in silent[39:]] == [b""] * 201
                assert (await asked.reply()).is_complete
            assert not any([await is_closed(client) for client in silent[:39]])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await is_served(server.url):  # until there is room again
                pass


async def is_closed(client: Client) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            return await client.closed() == b""
    return False


async def is_served(url: str) -> bool:
    with suppress(ConnectionError):
        return (await ask(url, stream=True)).status == 200
    return False


def test_a2_without_the_c_parser_it_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "serve", "--upstream", "http://127.0.0.1:9"],
        env=environment(AIOHTTP_NO_EXTENSIONS="1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("aiohttp runs without its C parser")
    assert len(done.stderr.splitlines()) == 1


def test_a3_the_pinned_aiohttp_is_no_version_with_known_holes() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert tuple(map(int, pins["aiohttp"].split("."))) >= (3, 14, 5)
    assert "orjson" not in pins


@pytest.mark.parametrize(
    "head",
    [b"X-A: " + b"y" * 1_000_000, b"".join(b"X-%d: y\r\n" % n for n in range(10_000)), b"X" * 20_000 + b": y\r\n"],
    ids=["one long", "many", "a long name"],
)
async def test_a6_a_head_without_measure_is_refused_though_it_comes_in_small_pieces(head: bytes) -> None:
    raw = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + head
    async with weir(ScriptedUpstream()) as server, connected(server.url) as client:
        with suppress(ConnectionError):
            for at in range(0, len(raw), 1000):
                await client.send(raw[at : at + 1000])
                await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            reply = read_reply(await client.closed())
        assert reply.status in (0, 400, 431)  # 0: it was closed before all was sent, and the answer went with it
        assert server.upstream.requests == []
