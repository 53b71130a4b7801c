"""A wrong base URL, and the right one beside it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import SecretStr

from proxy.doctor import Status, about_upstream
from proxy.neighbours import answering, spellings
from proxy.settings import UpstreamSettings
from tests.fakes import listening


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://h:1/v1", ["https://h:1/v1"]),
        ("http://h:1", ["https://h:1/v1"]),
        ("http://h:1/api", ["http://h:1/api/v1", "http://h:1/v1", "https://h:1/api", "https://h:1/api/v1", "https://h:1/v1"]),
        ("https://h/v1/chat/completions?a=b", ["https://h/v1?a=b", "http://h/v1?a=b"]),
        ("https://h/api/v1/", ["https://h/v1", "http://h/api/v1", "http://h/v1"]),
        ("HTTPS://h/v1", ["http://h/v1"]),
    ],
)  # fmt: skip
def test_other_spellings_of_a_base_url(given: str, meant: list[str]) -> None:
    assert spellings(given) == meant


@asynccontextmanager
async def serving(
    status: int = 200, body: str = '{"object": "list", "data": []}'
) -> AsyncIterator[tuple[str, list[str]]]:
    """An API below /v1 and nothing else; yields its host and the credentials that it was shown."""
    shown: list[str] = []

    async def models(request: web.Request) -> web.Response:
        shown.append(request.headers.get("authorization", ""))
        return web.Response(status=status, text=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/models", models)
    async with listening(app) as url:
        yield url.removeprefix("http://"), shown


@pytest.mark.parametrize("path", ["/api", "/v1/chat/completions", "/v1/models", "/api/v1"])
async def test_a_wrong_path_is_told_the_right_one_and_shown_no_key(path: str) -> None:
    async with serving() as (host, shown):
        settings = UpstreamSettings(base_url=f"http://{host}{path}", api_key=SecretStr("sk-canary"))
        finding = await about_upstream(settings, {})
        assert finding.status is Status.WARN
        assert finding.todo == f"An API answers at http://{host}/v1: is that the base URL?"
        assert shown == [""]


@pytest.mark.parametrize("status", [401, 403])
async def test_https_to_a_server_without_tls_is_told_http(status: int) -> None:
    async with serving(status=status) as (host, _):
        finding = await about_upstream(UpstreamSettings(base_url=f"https://{host}/v1"), {})
        assert finding.status is Status.FAIL
        assert finding.todo == f"An API answers at http://{host}/v1: is that the base URL?"


@pytest.mark.parametrize(("status", "body"), [(404, "{}"), (500, "{}"), (200, "<html>"), (200, '{"data": 1}')])
async def test_what_is_no_api_is_no_hint(status: int, body: str) -> None:
    async with serving(status, body) as (host, _):
        assert await answering(UpstreamSettings(base_url=f"http://{host}/api")) is None


async def test_where_nothing_listens_the_finding_stays_as_it_is() -> None:
    async with serving() as (host, _):
        pass
    finding = await about_upstream(UpstreamSettings(base_url=f"http://{host}/v1"), {})
    assert (finding.status, finding.todo) == (Status.FAIL, "Is the server running, on that host and port?")
