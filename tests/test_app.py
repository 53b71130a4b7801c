"""Routes and one server around them."""

import asyncio
from typing import Any

import pytest

from proxy.app import running
from proxy.config import load_settings
from proxy.connections import HTTP_LINES_A_SECOND
from proxy.settings import Settings
from tests.fakes import ScriptedGuard
from tests.sockets import PATIENCE_SECONDS, ask, connected


def settings_of(**overrides: Any) -> Settings:
    values = {"upstream.base_url": "http://127.0.0.1:1", "server.port": 0}
    return load_settings(overrides=values | {k.replace("__", "."): v for k, v in overrides.items()}, environ={})


async def test_a_connection_that_says_garbage_is_told_so_and_closed(caplog: pytest.LogCaptureFixture) -> None:
    async with running(settings_of(), ScriptedGuard()) as port:
        url = f"http://127.0.0.1:{port}"
        for _ in range(HTTP_LINES_A_SECOND * 3):
            async with connected(url) as client:
                await client.send(b"sk-canary\r\n\r\n")
                assert (await client.closed()).startswith(b"HTTP/1.0 400 ")
    assert "canary" not in caplog.text
    assert "Traceback" not in caplog.text
    assert 1 <= len(caplog.records) <= HTTP_LINES_A_SECOND * 2


async def test_a_head_that_never_ends_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.connections.IDLE_CONNECTION_SECONDS", 0.3)
    async with running(settings_of(), ScriptedGuard()) as port, connected(f"http://127.0.0.1:{port}") as client:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-A: ")
            assert await client.closed() == b""


async def test_a_port_that_stopped_refuses() -> None:
    async with running(settings_of(), ScriptedGuard()) as port:
        assert (await ask(f"http://127.0.0.1:{port}", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
    with pytest.raises(ConnectionRefusedError):
        await ask(f"http://127.0.0.1:{port}")
