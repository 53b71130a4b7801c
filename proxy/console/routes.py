"""Where the console is served. The operator's listener has checked who asks before anything here runs."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from proxy import __version__
from proxy.config import ConfigError
from proxy.console.page import FILES, body_of
from proxy.console.playground import MAX_BODY_BYTES, judge, policy_dict, read_asked
from proxy.console.search import read_search
from proxy.console.shown import Shown
from proxy.errors import GUARD_FAILED, ApiError, Fault
from proxy.guard.protocol import GuardError, SequenceTooLong
from proxy.incoming import read_request
from proxy.moderate import BadConversation
from proxy.record_settings import RecordSettings
from proxy.request_body import BadRequest
from proxy.settings import UpstreamSettings
from proxy.store.base import StoreError
from proxy.store.places import open_reader

# What runs at once: the guard is there for those who are served, and each search reads a disk.
MAX_JUDGED, MAX_SEARCHES = 2, 2
# A conversation's verdict. Long before it a person has given up.
JUDGE_SECONDS = 60.0
NO_STORE = "No records are kept: set [records] file or url in weir.toml."

T = TypeVar("T")


class Console:
    """About one application, or all workers of a server."""

    def __init__(self, shown: Shown, judge_seconds: float = JUDGE_SECONDS) -> None:
        self._shown = shown
        self._judge_seconds = judge_seconds
        self._judging = self._searching = 0
        # Of its own: a slow disk must not hold up what requests do in threads.
        self._threads = ThreadPoolExecutor(MAX_SEARCHES, "weir-console")

    def routes(self) -> list[web.RouteDef]:
        asked = {
            "/console/about": self.about,
            "/console/live": self.live,
            "/console/health": self.health,
            "/console/records": self.records,
            "/console/records/{id:[A-Za-z0-9_-]{1,80}}": self.record,
        }
        files = [web.get(path, page, allow_head=False) for path in FILES]
        data = [web.get(path, handler, allow_head=False) for path, handler in asked.items()]
        return [*files, *data, web.post("/console/judge", self.judge)]

    async def close(self, _: web.Application) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def about(self, _: web.Request) -> web.StreamResponse:
        """What does not change while the page is open, but for a reload of the settings."""
        scene = self._shown.scene()
        info = scene.guard.info
        return web.json_response(
            {
                "version": __version__,
                "guard": {"model": info.model, "revision": info.revision, "window": info.window},
                "upstreams": [_upstream(one) for one in scene.settings.upstreams],
                "policies": [policy_dict(one) for one in scene.policies.all],
                "keeps_records": scene.settings.records.is_on,
                "fails_open": scene.settings.guard.on_failure == "open",
            }
        )

    async def live(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(await self._shown.live())

    async def health(self, _: web.Request) -> web.StreamResponse:
        """A real verdict on a canary: it takes as long as the guard does."""
        health = await self._shown.scene().guard.health()
        return web.json_response({"ready": health.is_ready, "detail": health.detail, "seconds": health.seconds})

    async def judge(self, request: web.Request) -> web.StreamResponse:
        scene = self._shown.scene()
        if self._judging >= MAX_JUDGED:
            raise ApiError(429, "Other conversations are being judged here.", code="overloaded")
        self._judging += 1
        try:
            limits = scene.settings.server.model_copy(update={"max_body_bytes": MAX_BODY_BYTES})
            asked = await read_request(request, limits, lambda body: read_asked(body, scene.policies.all, limits))
            async with asyncio.timeout(self._judge_seconds):
                return web.json_response(await judge(asked, scene.guard, scene.settings.guard))
        except BadConversation as exc:
            raise ApiError(400, str(exc), code="invalid_value") from exc
        except SequenceTooLong as exc:
            raise ApiError(400, "The conversation is too long.", code="context_length_exceeded") from exc
        except (GuardError, TimeoutError) as exc:
            raise Fault(GUARD_FAILED, 503).api_error() from exc
        finally:
            self._judging -= 1

    async def records(self, request: web.Request) -> web.StreamResponse:
        try:
            wanted, most = read_search(request.query.items())
        except BadRequest as exc:
            raise ApiError(exc.status, exc.message, param=exc.param, code=exc.code) from exc

        settings = self._shown.scene().settings.records

        def read() -> list[dict[str, Any]]:
            with open_reader(settings) as store:
                return list(store.find(wanted, most=most))

        return web.json_response({"records": await self._from_store(settings, read)})

    async def record(self, request: web.Request) -> web.StreamResponse:
        settings = self._shown.scene().settings.records

        def read() -> dict[str, Any] | None:
            with open_reader(settings) as store:
                return store.show(request.match_info["id"])

        found = await self._from_store(settings, read)
        if found is None:
            raise ApiError(404, "There is no such record.", code="not_found")
        return web.json_response(found)

    async def _from_store(self, settings: RecordSettings, read: Callable[[], T]) -> T:
        """Off the event loop. Raises ApiError."""
        if not settings.is_on:
            raise ApiError(404, NO_STORE, code="no_records")
        if self._searching >= MAX_SEARCHES:
            raise ApiError(429, "Other searches are running.", code="overloaded")
        self._searching += 1
        reading = asyncio.get_running_loop().run_in_executor(self._threads, read)
        reading.add_done_callback(self._searched)
        try:
            return await asyncio.shield(reading)  # a thread goes on, and counts, when its page has left
        except ConfigError as exc:
            raise ApiError(404, str(exc), code="no_records") from exc
        except StoreError as exc:
            raise ApiError(503, f"The records cannot be read: {exc}.", code="records_unreadable") from exc

    def _searched(self, _: asyncio.Future[T]) -> None:
        self._searching -= 1


async def page(request: web.Request) -> web.StreamResponse:
    return web.Response(body=body_of(request.path), headers={"content-type": FILES[request.path][1]})


def _upstream(settings: UpstreamSettings) -> dict[str, Any]:
    """By name and host: the rest of an address may hold a secret."""
    host = urlsplit(settings.base_url).netloc
    return {"name": settings.name, "host": host, "dialect": settings.dialect, "models": settings.models}
