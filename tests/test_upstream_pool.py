"""How many connections there are to an upstream, and which of them serve again."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
from yarl import URL

from proxy.upstream_connection import UpstreamConnection
from proxy.upstream_pool import ConnectTimeout, Pool
from proxy.upstream_route import Route
from tests.fakes import RawUpstream, framed


@asynccontextmanager
async def pooled(
    reply: bytes | None = None,
    limit: int = 10,
    connect_seconds: float = 20.0,
    keep_seconds: float = 60.0,
    late: bytes = b"",
) -> AsyncIterator[tuple[Pool, RawUpstream]]:
    upstream = RawUpstream(framed(b"hi", "length") if reply is None else reply, stays=True, late=late)
    async with upstream.running():
        with closing(Pool(Route(URL(upstream.url)), limit, connect_seconds, keep_seconds)) as pool:
            yield pool, upstream


async def served(pool: Pool) -> UpstreamConnection:
    """A connection after an exchange, given back."""
    connection = await pool.take()
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    await connection.head()
    while (part := connection.take()) != b"":
        if part is None:
            await connection.more()
    pool.give_back(connection)
    return connection


async def test_a_connection_serves_again() -> None:
    async with pooled() as (pool, upstream):
        first = await served(pool)
        assert await served(pool) is first
        assert upstream.hits == 2


async def test_one_that_was_not_read_to_its_end_does_not() -> None:
    async with pooled(framed(b"hi", "length")[:-1]) as (pool, upstream):
        connection = await pool.take()
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        await connection.head()
        pool.give_back(connection)
        pool.give_back(connection)  # twice is once
        await upstream.closed.wait()
        assert await pool.take() is not connection


async def test_one_on_which_something_came_afterwards_does_not() -> None:
    async with pooled(late=b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL") as (pool, upstream):
        first = await served(pool)
        await upstream.closed.wait()
        assert await served(pool) is not first


async def test_one_that_was_idle_for_long_is_closed() -> None:
    async with pooled(keep_seconds=0.05) as (pool, upstream):
        first = await served(pool)
        await upstream.closed.wait()
        assert not first.is_open


async def test_one_that_has_rested_for_too_long_is_not_used_though_nobody_has_swept() -> None:
    async with pooled(keep_seconds=0.2) as (pool, upstream):
        first = await served(pool)
        time.sleep(0.3)  # noqa: ASYNC251 (the loop is held up: no timer runs)
        assert await served(pool) is not first
        assert upstream.hits == 2


async def test_a_pool_that_is_shared_ends_with_the_last_who_closes_it() -> None:
    async with pooled() as (pool, _):
        first = await served(pool.share())
        pool.close()
        assert first.is_open
        assert not pool.is_closed
        pool.share()
        pool.close()
        assert await served(pool) is first


async def test_there_are_no_more_than_the_limit_and_who_waits_gets_the_next() -> None:
    async with pooled(limit=2) as (pool, _):
        taken = [await pool.take(), await pool.take()]
        async with asyncio.TaskGroup() as group:
            third = group.create_task(pool.take())
            await asyncio.sleep(0.05)
            assert not third.done()
            pool.give_back(taken[0])
        assert third.result() is not taken[0]


async def test_nobody_waits_longer_than_to_connect() -> None:
    async with pooled(limit=1) as (pool, _):
        taken = await pool.take()
        pool._connect_seconds = 0.05  # from now on: to connect may take longer on a busy machine
        with pytest.raises(ConnectTimeout):
            await pool.take()
        pool._connect_seconds = 20.0
        pool.give_back(taken)
        pool.give_back(await pool.take())  # who gave up holds no place


async def test_who_is_cancelled_while_waiting_holds_no_place() -> None:
    async with pooled(limit=1) as (pool, _):
        taken = await pool.take()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await pool.take()
        pool.give_back(taken)
        await pool.take()


async def test_a_pool_that_closes_takes_its_connections_with_it() -> None:
    async with pooled() as (pool, upstream):
        taken, idle = await pool.take(), await served(pool)
        pool.close()
        await upstream.closed.wait()
        assert not taken.is_open
        assert not idle.is_open
