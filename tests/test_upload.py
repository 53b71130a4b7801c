"""An upload: whole or not at all, at the upstream's pace, and never in memory."""

import asyncio
import tracemalloc
from typing import Any

from tests.fakes import RawUpstream, ScriptedUpstream, framed
from tests.servers import recorded, weir
from tests.sockets import PATIENCE_SECONDS, Reply, ask, connected, http_request, timed
from tests.wire import cut

BINARY = bytes(range(256)) * 40
FORM = {"Content-Type": 'multipart/form-data; boundary="a b"'}
UPLOAD = b'--a b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + BINARY + b"\r\n--a b--\r\n"


def chunked(body: bytes, **options: Any) -> bytes:
    headers = {"Content-Length": "", "Transfer-Encoding": "chunked"} | options.pop("headers", {})
    parts = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in cut(body, 1000))
    return http_request(b"", headers=headers, **options) + parts + b"0\r\n\r\n"


async def test_a_body_too_large_is_refused_before_or_as_it_comes() -> None:
    upstream = ScriptedUpstream([b"{}"])
    async with weir(upstream, passthrough__allow="files", passthrough__max_upload_bytes=5000) as server:
        for raw in (http_request(UPLOAD, path="/v1/files"), chunked(UPLOAD, path="/v1/files")):
            reply = await ask(server.url, raw)
            assert (reply.status, reply.error["code"]) == (413, "request_too_large")
        assert (await ask(server.url, http_request(UPLOAD[:5000], path="/v1/files"))).status == 200
    assert [len(seen["body"]) for seen in upstream.requests] == [5000]


async def test_a_compressed_body_is_refused() -> None:
    async with weir(ScriptedUpstream(), passthrough__allow="files") as server:
        raw = http_request(UPLOAD, path="/v1/files", headers={"Content-Encoding": "gzip"})
        assert (await ask(server.url, raw)).status in (400, 415)
        assert server.upstream.requests == []


async def test_a_client_that_stalls_or_leaves_within_its_upload_costs_nothing() -> None:
    upstream = ScriptedUpstream([b"{}"])
    half = http_request(UPLOAD, path="/v1/files", headers=FORM)[:-5000]
    async with weir(upstream, passthrough__allow="files", passthrough__idle_seconds=0.2) as server:
        with recorded() as records, timed():
            reply = await ask(server.url, half)
        assert (reply.status, reply.error["code"]) == (408, "request_timeout")
        assert (await records.next())["outcome"] == "refused"
        for reset in (False, True):
            with recorded() as records:
                async with connected(server.url) as client:
                    await client.send(half)
                    await asyncio.sleep(0.05)  # the upload has begun
                    client.leave(reset=reset)
                assert (await records.next())["outcome"] == "client_gone"
    assert upstream.requests == []  # half a file is none


async def test_a_slow_upload_is_not_the_upstreams_delay() -> None:
    upstream = ScriptedUpstream([b"{}"])
    async with weir(upstream, passthrough__allow="files", upstream__first_byte_seconds=0.5) as server:
        async with connected(server.url) as client:
            raw = http_request(UPLOAD, path="/v1/files")
            for part in cut(raw, len(raw) // 6 + 1):
                await client.send(part)
                await asyncio.sleep(0.15)
            assert (await client.reply()).status == 200
        upstream.first_byte_delay = 3600
        with timed():
            assert (await ask(server.url, http_request(UPLOAD, path="/v1/files"))).status == 504


async def test_an_upstream_that_answers_before_the_upload_has_ended_is_heard() -> None:
    raw = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\ncontent-type: text/plain\r\n\r\nno"

    class Hasty(RawUpstream):
        async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(raw)
            await writer.drain()
            await asyncio.sleep(0.2)

    async with weir(Hasty(), passthrough__allow="files") as server, connected(server.url) as client:
        await client.send(http_request(UPLOAD * 500, path="/v1/files")[:2000])
        async with asyncio.timeout(PATIENCE_SECONDS):
            reply = await client.reply()
    assert (reply.status, reply.body) == (403, b"no")


async def test_an_upstream_that_does_not_read_stops_the_client_and_is_given_up() -> None:
    class Deaf(RawUpstream):
        async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(3600)

    size, sent = 64 << 20, 0
    limits: dict[str, Any] = {"passthrough__allow": "files", "upstream__first_byte_seconds": 0.5}
    async with weir(Deaf(), **limits) as server, connected(server.url) as client, asyncio.timeout(2 * PATIENCE_SECONDS):
        await client.send(http_request(b"", path="/v1/files", headers={"Content-Length": str(size)}))

        async def pour() -> None:
            nonlocal sent
            while sent < size:
                await client.send(b"x" * (1 << 16))
                sent += 1 << 16

        async with asyncio.TaskGroup() as group:
            pouring = group.create_task(pour())
            reply = await client.reply()
            pouring.cancel()
    assert reply.status == 504
    assert sent < 24 << 20


async def test_a_huge_upload_takes_no_memory() -> None:
    size = 48 << 20
    read = 0

    class Reading(RawUpstream):
        async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal read
            await reader.readuntil(b"\r\n\r\n")
            while read < size:
                read += len(await reader.read(1 << 16))
            writer.write(framed(b"{}", "length", "application/json"))
            await writer.drain()

    block = b"x" * (1 << 16)
    async with weir(Reading(), passthrough__allow="files") as server, connected(server.url) as client:
        tracemalloc.start()
        try:
            await client.send(http_request(b"", path="/v1/files", headers={"Content-Length": str(size)}))
            for _ in range(size >> 16):
                await client.send(block)
            reply: Reply = await client.reply()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (reply.status, read) == (200, size)
    assert peak < 8 << 20
