"""How many connections there may be. What one gets that says garbage is in test_app.py."""

import resource

import pytest

from proxy.connections import OTHER_FILES, Room, most_connections
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


def test_the_systems_limit_of_files_bounds_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (OTHER_FILES + 200, 4096))
    assert most_connections(ServerSettings()) == 100
    assert most_connections(ServerSettings(max_connections=7)) == 7
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 10))
    assert most_connections(ServerSettings()) == 1
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert most_connections(ServerSettings()) == ServerSettings().max_connections
