"""Where a guard's process listens; test_supervisor.py shows it with a guard behind."""

import socket
from pathlib import Path

import pytest

from proxy.guard.listeners import listen, port_of, remove
from proxy.guard.process import Config
from proxy.guard.settings import GuardSettings


def config_of(**place: object) -> Config:
    return Config("embedded", GuardSettings(), **place)  # type: ignore[arg-type]


def test_a_path_is_for_its_owner_and_an_address_for_who_knows_the_token(tmp_path: Path) -> None:
    path = tmp_path / "s"
    config = config_of(path=str(path), host="127.0.0.1", token="secret")
    listeners = listen(config)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [(one.family, token) for one, token in listeners.items()] == [
        (socket.AF_UNIX, ""),
        (socket.AF_INET, "secret"),
    ]
    socket.create_connection(("127.0.0.1", port_of(listeners))).close()
    for one in listeners:
        one.close()
    remove(config)
    assert not path.exists()


def test_what_was_left_behind_makes_way_and_who_listens_does_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (first,) = listen(config_of(path=str(path)))
    with pytest.raises(OSError, match="in use"):
        listen(config_of(path=str(path)))
    first.close()
    (second,) = listen(config_of(path=str(path)))
    assert port_of({second: ""}) == 0
    second.close()


def test_nothing_stays_open_of_a_place_that_cannot_be_had(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(ValueError, match="needs a token"):
        listen(config_of(path=str(path), host="127.0.0.1"))
    (again,) = listen(config_of(path=str(path)))
    again.close()
