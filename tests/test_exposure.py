"""A start that would let in whoever finds the port, or send a key of ours upstream."""

from typing import Any

import pytest

from proxy.config import ConfigError, load_settings
from proxy.exposure import is_loopback, require_identity

KEYS = "app:" + "a" * 64


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)]
)
def test_loopback_is_recognised(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({}, ""),
        ({"server.host": "0.0.0.0"}, "WEIR_AUTH__OPEN=true"),
        ({"server.host": "weir.internal"}, "weir key new NAME"),
        ({"server.host": "0.0.0.0", "auth.open": True}, ""),
        ({"server.host": "0.0.0.0", "auth.keys": KEYS, "upstream.api_key": "sk-1"}, ""),
        ({"server.host": "0.0.0.0", "auth.keys": KEYS}, "WEIR_UPSTREAM__API_KEY"),
        ({"auth.keys": KEYS}, "WEIR_UPSTREAM__API_KEY"),
        ({"auth.keys": KEYS, "upstream.client_key": False}, ""),
        ({"auth.keys": KEYS, "upstream.client_key": True}, "client_key = false"),
    ],
)
def test_what_is_exposed_is_refused_with_what_to_do(given: dict[str, Any], refused: str) -> None:
    settings = load_settings(overrides=given, environ={})
    if not refused:
        require_identity(settings)
        return
    with pytest.raises(ConfigError, match=refused):
        require_identity(settings)
