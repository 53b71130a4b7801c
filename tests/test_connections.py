"""How many connections there may be. What one gets that says garbage is in test_app.py."""

import asyncio
import errno
import resource

import pytest
from aiohttp import web

from proxy.connections import OTHER_FILES, Connection, Room, block_of, most_connections, tell_seldom_of_files
from proxy.errors import TOO_MANY, ApiError, Fault
from proxy.server_settings import ServerSettings
from proxy.shedding import Shedding
from tests.sockets import PATIENCE_SECONDS, connected, http_request


def test_a_full_room_lets_nobody_in_until_somebody_leaves() -> None:
    told: list[ApiError] = []
    room = Room(2, told.append)
    assert [room.enter() for _ in range(3)] == [True, True, False]
    assert [error.code for error in told] == ["too_many_connections"]
    room.leave()
    assert room.enter()
    assert room.held == 2


def test_one_address_takes_its_share_and_no_more() -> None:
    told: list[ApiError] = []
    room = Room(5, told.append, per_address=2)
    assert [room.enter("10.0.0.1") for _ in range(3)] == [True, True, False]
    assert told[0].limit == "server.max_connections_per_address"
    assert [room.enter("2001:db8::1"), room.enter("2001:db8::2:1"), room.enter("2001:db8::3")] == [True, True, False]
    room.leave("10.0.0.1")
    assert room.enter("::ffff:10.0.0.1")
    assert not room.enter("10.0.0.1")
    room.per_address = None
    assert room.enter("10.0.0.1")
    assert not room.enter("10.0.0.9")  # five are there
    assert told[-1].limit == "server.max_connections"


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_address_stands_for_its_network(address: str, block: str) -> None:
    assert block_of(address) == block


def test_the_systems_limit_of_files_bounds_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (OTHER_FILES + 200, 4096))
    assert most_connections(ServerSettings()) == 100
    assert most_connections(ServerSettings(max_connections=7)) == 7
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 10))
    assert most_connections(ServerSettings()) == 1
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert most_connections(ServerSettings()) == ServerSettings().max_connections


async def test_who_reads_no_refusals_is_sent_no_more_of_them() -> None:
    """They would pile up without end: what comes then waits its turn as any request does."""
    asked, made = asyncio.Event(), list[Connection]()

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        return web.Response()

    def tell(*_: object) -> None: ...

    server, shedding = web.Server(handler), Shedding(lambda: Fault(TOO_MANY, 503).api_error(), tell)

    def connection() -> Connection:
        made.append(Connection(server, ServerSettings(), Room(9, tell), shedding))
        return made[-1]

    listener = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    async with asyncio.timeout(PATIENCE_SECONDS), listener:
        async with connected(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}") as client:
            await client.send(http_request())
            assert (await client.reply()).status == 503
            assert not asked.is_set()
            made[0].pause_writing()  # as its transport does when so much waits that it is full
            client.received = b""
            await client.send(http_request())
            await asked.wait()
            made[0].resume_writing()
            assert (await client.reply()).status == 200
        await server.shutdown()


async def test_what_finds_no_descriptor_is_told_once_a_second_and_all_else_as_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    was = loop.get_exception_handler()
    tell_seldom_of_files(loop)
    try:
        for _ in range(1000):
            loop.call_exception_handler({"exception": OSError(errno.EMFILE, "Too many open files"), "socket": None})
        loop.call_exception_handler({"message": "another", "exception": ValueError()})
    finally:
        loop.set_exception_handler(was)
    assert [line.getMessage() for line in caplog.records] == ["nobody can connect: Too many open files", "another"]
