"""Names by which a server may be asked; over a socket they are in reliability/test_b_routes_and_trust.py."""

import pytest

from proxy.config import load_settings
from proxy.errors import ApiError
from proxy.hosts import Hosts, name_in


def is_asked(hosts: Hosts, host: str | None, origin: str | None = None) -> bool:
    try:
        hosts.check(host, origin)
    except ApiError:
        return False
    return True


def hosts_of(**given: object) -> Hosts:
    values = {name.replace("__", "."): value for name, value in given.items()}
    return Hosts(load_settings(overrides=values, environ={}))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("evil.test", "evil.test"),
        ("Evil.Test.:80", "evil.test"),
        ("[::1]:80", "::1"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1", ""),
        ("localhost:80/x?", ""),
        ("127.0.0.1@evil.test", ""),
        ("", ""),
    ],
)
def test_a_name_is_read_without_its_port(host: str, expected: str) -> None:
    assert name_in(host) == expected


def test_only_a_keyless_server_on_loopback_has_a_list_of_its_own() -> None:
    assert not is_asked(hosts_of(), "weir.test")
    assert not is_asked(hosts_of(), None)
    assert is_asked(hosts_of(), "localhost")
    assert is_asked(hosts_of(server__host="0.0.0.0"), "weir.test", "https://evil.test")
    key = [{"name": "a", "sha256": "0" * 64}]
    assert is_asked(hosts_of(auth__keys=key), "weir.test", "https://evil.test")


def test_a_list_holds_everywhere_and_for_pages_too_and_can_change() -> None:
    hosts = hosts_of(server__host="0.0.0.0", server__allowed_hosts=["weir.test"])
    assert is_asked(hosts, "weir.test:80", "https://weir.test")
    assert not is_asked(hosts, "localhost")
    for page in ("https://evil.test", "http://localhost", "null"):
        assert not is_asked(hosts, "weir.test", page)
    assert is_asked(hosts, "weir.test", "chrome-extension://abcdef")
    hosts.adopt(load_settings(overrides={"server.allowed_hosts": "*"}, environ={}))
    assert is_asked(hosts, "any.test", "https://any.test")
