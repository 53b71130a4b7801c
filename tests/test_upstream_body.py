"""A body as a driver takes it: bytes, an end, and a fault where it breaks or was given back."""

import asyncio

import pytest

from proxy.errors import UPSTREAM_BROKE, Fault
from proxy.upstream_body import UpstreamBody
from tests.test_upstream_connection import OK, linked


async def test_it_is_taken_to_its_end_and_its_listener_is_called() -> None:
    async with linked() as (connection, peer):
        body = UpstreamBody(connection)
        heard = asyncio.Event()
        await peer.send(OK[:-3])
        await connection.head()
        assert body.take() is None
        body.listen(heard.set)
        await peer.send(b"ab")
        await heard.wait()
        assert body.take() == b"ab"
        assert body.arrived() > 0
        assert not body.has_all
        body.listen(None)
        await peer.send(b"c")
        await body.more()
        assert body.has_all  # whatever of it is still to be taken
        assert (body.take(), body.take()) == (b"c", b"")


async def test_a_break_is_a_fault() -> None:
    async with linked() as (connection, peer):
        body = UpstreamBody(connection)
        await peer.send(OK[:-1])
        await connection.head()
        assert body.take() == b"ab"
        peer.writer.close()
        await body.more()
        with pytest.raises(Fault) as caught:
            body.take()
        assert caught.value.failure is UPSTREAM_BROKE


async def test_once_closed_it_has_nothing() -> None:
    async with linked() as (connection, peer):
        body = UpstreamBody(connection)
        await peer.send(OK)
        await connection.head()
        assert body.close() is connection
        assert body.close() is None
        assert (body.has_all, body.arrived()) == (False, 0.0)
        body.listen(lambda: None)  # nobody will call
        assert connection.on_more is None
        with pytest.raises(Fault):
            body.take()
