"""The operator's listener over a real socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from proxy.admin import CannotListen, OneServer, administered, check_neighbour
from proxy.admin_settings import AdminSettings
from proxy.app import build_app
from proxy.config import ConfigError, load_settings
from proxy.errors import ApiError
from proxy.reload import Reload, Reloaded
from tests.fakes import ScriptedGuard
from tests.sockets import Reply, ask, http_request

KEY = "operators-key-0123456789"


@asynccontextmanager
async def operated(reload: Reload | None = None, **given: Any) -> AsyncIterator[str]:
    app = build_app(load_settings(overrides={"upstream.base_url": "http://127.0.0.1:1"}, environ={}), ScriptedGuard())
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        async with administered(AdminSettings.model_validate({"port": 0, **given}), OneServer(app, reload)) as port:
            yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def get(path: str, host: str = "127.0.0.1", **headers: str) -> bytes:
    given = {"Host": host, "Content-Type": "", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return http_request(b"", method="GET", path=path, headers=given)


async def test_metrics_and_health_are_there_and_nothing_else() -> None:
    async with operated() as url:
        reply = await ask(url, get("/metrics"))
        assert reply.headers["content-type"].startswith("text/plain; version=")
        assert b"\nweir_streams 0.0\n" in reply.body
        assert (await ask(url, get("/healthz"))).json == {"status": "ok"}
        assert (await ask(url, get("/readyz"))).json == {"ready": True}
        for path in ("/v1/chat/completions", "/metrics/"):
            assert (await ask(url, get(path))).status == 404
        assert (await ask(url, http_request(path="/metrics", headers={"Host": "localhost"}))).status == 405


async def test_with_a_key_nothing_is_told_without_it() -> None:
    async with operated(key=KEY) as url:
        for path in ("/metrics", "/healthz", "/nothing"):
            for headers in ({}, {"authorization": f"Bearer {KEY[:-1]}"}, {"authorization": KEY}, {"x_api_key": KEY}):
                assert (await ask(url, get(path, **headers))).status == 401
        assert (await ask(url, get("/metrics", host="any.name", authorization=f"Bearer {KEY}"))).status == 200


@pytest.mark.parametrize(
    ("host", "is_let_in"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:9464", True),
        ("localhost:9464", True),
        ("[::1]:9464", True),
        ("evil.test", False),
        ("evil.test:9464", False),
        ("127.0.0.1.evil.test", False),
        ("", False),
        (None, False),
    ],
)
def test_without_a_key_only_loopback_names_are_answered(host: str | None, is_let_in: bool) -> None:
    if is_let_in:
        check_neighbour(host, None)
        check_neighbour(host, f"http://{host}")
        return
    with pytest.raises(ApiError) as caught:
        check_neighbour(host, None)
    assert caught.value.status == 403


async def test_a_reload_is_asked_for_as_json_and_told_of() -> None:
    outcomes: list[Reloaded | ConfigError] = [
        Reloaded(("[policy] mode",), ("[server] port",)),
        ConfigError("weir.toml line 3: it is wrong."),
    ]

    async def reload() -> Reloaded:
        found = outcomes.pop(0)
        if isinstance(found, ConfigError):
            raise found
        return found

    async with operated(reload=reload) as url:

        async def ask_for(**headers: str) -> Reply:
            given = {"Host": "127.0.0.1", **{name.replace("_", "-"): text for name, text in headers.items()}}
            return await ask(url, http_request(b"", path="/reload", headers=given))

        for headers, status in (({"Content_Type": "text/plain"}, 415), ({"Content_Type": ""}, 415),
                                ({"Host": "evil.test"}, 403), ({"Origin": "https://evil.test"}, 403)):  # fmt: skip
            assert (await ask_for(**headers)).status == status
        assert (await ask(url, get("/reload"))).status == 405
        assert len(outcomes) == 2
        assert (await ask_for()).json == {"changed": ["[policy] mode"], "needs_restart": ["[server] port"]}
        reply = await ask_for()
        assert (reply.status, reply.error["code"]) == (409, "settings_not_reloaded")
        assert reply.error["message"] == "weir.toml line 3: it is wrong."
    async with operated() as url:
        assert (await ask_for()).status == 409


async def test_a_port_in_use_is_an_error_of_the_start() -> None:
    async with operated() as url:
        port = url.rpartition(":")[2]
        with pytest.raises(CannotListen, match=rf"Port {port} of 127.0.0.1, \[admin\] port, is in use"):
            async with operated(port=int(port)):
                pass


async def test_without_a_port_there_is_no_listener() -> None:
    async with administered(AdminSettings(), OneServer(web.Application())) as port:
        assert port is None
