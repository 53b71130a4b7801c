"""How many connections there may be. What one gets that says garbage is in test_app.py."""

import resource

import pytest

from proxy.connections import OTHER_FILES, Room, block_of, most_connections
from proxy.errors import ApiError
from proxy.server_settings import ServerSettings


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
