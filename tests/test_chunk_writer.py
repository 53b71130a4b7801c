"""Chunks on their way: framed for newer clients, bare for older ones, refused where the client is gone."""

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol

from proxy.chunk_writer import ChunkWriter


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_gone = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_gone


async def opened(*, is_chunked: bool = True) -> tuple[ChunkWriter, Transport, BaseProtocol]:
    protocol, transport = BaseProtocol(asyncio.get_running_loop()), Transport()
    protocol.connection_made(transport)
    return ChunkWriter(protocol, is_chunked=is_chunked), transport, protocol


async def test_the_head_goes_with_the_first_chunk_and_the_end_with_the_last() -> None:
    writer, transport, _ = await opened()
    writer.head = b"HEAD"
    writer.write(b"abc")
    writer.write(b"x" * 16)
    assert not writer.has_ended
    writer.write(b"end", is_last=True)
    assert transport.sent == [b"HEAD3\r\nabc\r\n", b"10\r\n" + b"x" * 16 + b"\r\n", b"3\r\nend\r\n0\r\n\r\n"]
    assert writer.has_ended
    writer.end()
    assert len(transport.sent) == 3


async def test_an_older_client_gets_bare_bytes() -> None:
    writer, transport, _ = await opened(is_chunked=False)
    writer.head = b"HEAD"
    writer.write(b"abc")
    writer.write(b"def", is_last=True)
    assert transport.sent == [b"HEADabc", b"def"]


@pytest.mark.parametrize(("is_chunked", "end"), [(True, b"HEAD0\r\n\r\n"), (False, b"HEAD")])
async def test_an_answer_may_be_empty(is_chunked: bool, end: bytes) -> None:
    writer, transport, _ = await opened(is_chunked=is_chunked)
    writer.head = b"HEAD"
    writer.end()
    assert transport.sent == [end]


async def test_it_tells_that_the_client_is_full() -> None:
    writer, _, protocol = await opened()
    assert not writer.is_full
    protocol.pause_writing()
    assert writer.is_full
    protocol.resume_writing()
    assert not writer.is_full


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_client_that_is_gone_is_told_of(is_lost: bool) -> None:
    writer, transport, protocol = await opened()
    if is_lost:
        protocol.connection_lost(None)
    transport.is_gone = True
    with pytest.raises(ConnectionResetError):
        writer.write(b"abc")
    with pytest.raises(ConnectionResetError):
        writer.end()
    assert transport.sent == []
