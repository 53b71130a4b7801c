"""The operator's listener: metrics, health and the console on an address of its own, with a key of its own."""

import errno
import hmac
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.admin_settings import AdminSettings
from proxy.admission import STOP_SECONDS
from proxy.config import ConfigError
from proxy.console.live import live_of
from proxy.console.page import FILES, HEADERS
from proxy.console.routes import Console
from proxy.console.shown import Scene, Shown
from proxy.errors import INTERNAL, ApiError, Fault, place_of
from proxy.exposure import is_loopback
from proxy.handlers import ADMISSION, CURRENT, alive, is_ready, metrics_of, told_ready
from proxy.hosts import name_in
from proxy.identity import digest_of
from proxy.loading import refuse_while_loading
from proxy.reload import Reload, Reloaded
from proxy.replies import error_response

LOGGER = logging.getLogger("weir.admin")

ADMIN = web.AppKey("admin", AdminSettings)


class CannotListen(OSError):
    """A sentence."""


class Teller(Shown, Protocol):
    """Who knows what operators ask."""

    async def metrics(self) -> bytes: ...

    async def is_ready(self) -> bool: ...

    async def reload(self) -> Reloaded:
        """Read the settings again. Raises ConfigError."""


TELLER = web.AppKey("teller", Teller)


class OneServer:
    """A `Teller` of one application."""

    def __init__(self, public: web.Application, reload: Reload | None = None) -> None:
        """`reload`: where the settings can be read again."""
        self._public = public
        self._reload = reload

    def scene(self) -> Scene:
        now = self._public[CURRENT].now
        refuse_while_loading(now.guard)
        return Scene(now.settings, now.policies, now.guard)

    async def live(self) -> dict[str, Any]:
        admission = self._public[ADMISSION]
        found = live_of(metrics_of(self._public).registry.collect())
        return found | {"streams": admission.running, "draining": admission.is_draining}

    async def metrics(self) -> bytes:
        return metrics_of(self._public).text()

    async def is_ready(self) -> bool:
        return await is_ready(self._public)

    async def reload(self) -> Reloaded:
        if self._reload is None:
            raise ConfigError("The settings of this server came from no file.")
        return await self._reload()


def build_admin(settings: AdminSettings, teller: Teller) -> web.Application:
    """The operator's application, about what the clients' one does."""
    app = web.Application(middlewares=[for_operators])
    app[ADMIN] = settings
    app[TELLER] = teller
    app.router.add_get("/metrics", metrics, allow_head=False)
    app.router.add_get("/healthz", alive, allow_head=False)
    app.router.add_get("/readyz", readiness, allow_head=False)
    app.router.add_post("/reload", reload)
    console = Console(teller)
    app.router.add_routes(console.routes())
    app.on_cleanup.append(console.close)
    return app


async def metrics(request: web.Request) -> web.StreamResponse:
    return web.Response(body=await request.app[TELLER].metrics(), headers={"content-type": CONTENT_TYPE_LATEST})


async def readiness(request: web.Request) -> web.StreamResponse:
    return told_ready(await request.app[TELLER].is_ready())


async def reload(request: web.Request) -> web.StreamResponse:
    """As SIGHUP does, with the answer here. A page from elsewhere cannot send this type without being asked first."""
    if request.content_type != "application/json":
        raise ApiError(415, "Send it as application/json; the body is not read.", code="unsupported_media_type")
    try:
        done = await request.app[TELLER].reload()
    except ConfigError as exc:
        raise ApiError(409, str(exc), code="settings_not_reloaded") from exc
    return web.json_response({"changed": done.changed, "needs_restart": done.needs_restart})


@web.middleware
async def for_operators(request: web.Request, handler: Any) -> web.StreamResponse:
    """Nobody else gets further, whatever they ask for. The page's own files hold no secret."""
    settings = request.app[ADMIN]
    try:
        if settings.key is None:
            check_neighbour(request.headers.get("host"), request.headers.get("origin"))
        elif not _is_file_of_page(request):
            check_key(settings.key.get_secret_value(), request.headers.getall(hdrs.AUTHORIZATION, []))
        response: web.StreamResponse = await handler(request)
    except ApiError as exc:
        response = error_response(exc, {})
    except web.HTTPException as exc:
        response = error_response(ApiError(exc.status, "There is no such endpoint here.", code="not_found"), {})
    except (ConnectionError, TimeoutError):
        raise
    except Exception as exc:  # what it says may quote a conversation
        LOGGER.error("internal error: %s", place_of(exc))
        response = error_response(Fault(INTERNAL, 500).api_error(), {})
    response.headers.update({name: text for name, text in HEADERS.items() if name not in response.headers})
    return response


def _is_file_of_page(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    return request.method == "GET" and resource is not None and resource.canonical in FILES


def check_neighbour(host: str | None, origin: str | None) -> None:
    """Without a key the listener is on loopback. Raises ApiError.

    A page in a browser here could reach it by a name of its own that leads to 127.0.0.1, and the browser then tells
    that name; or send a request from elsewhere, and the browser then tells from where.
    """
    if not is_loopback(name_in(host or "")):
        raise ApiError(403, "Ask by a loopback address.", code="wrong_host")
    if origin is not None and origin.partition("://")[2] != host:
        raise ApiError(403, "Another page asked for it.", code="wrong_origin")


def check_key(key: str, credentials: Sequence[str]) -> None:
    """Raises ApiError."""
    given = [text.partition(" ") for text in credentials]
    token = given[0][2] if len(given) == 1 and given[0][0].lower() == "bearer" else ""
    if not hmac.compare_digest(digest_of(token), digest_of(key)):
        headers = {"www-authenticate": "Bearer"}
        raise ApiError(401, "The operator's key is missing or not valid.", code="invalid_api_key", headers=headers)


@asynccontextmanager
async def administered(settings: AdminSettings, teller: Teller) -> AsyncIterator[int | None]:
    """Serve operators until left; yields the port, None where no such listener is wanted. Raises CannotListen."""
    if settings.port is None:
        yield None
        return
    app = build_admin(settings, teller)
    # Who leaves the page frees the guard at once.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    try:
        await _listen(runner, settings)
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, settings: AdminSettings) -> None:
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as exc:
        what = "is in use" if exc.errno == errno.EADDRINUSE else f"cannot be listened on: {exc.strerror or exc}"
        raise CannotListen(f"Port {settings.port} of {settings.host}, [admin] port, {what}.") from exc
