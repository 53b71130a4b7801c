"""The operator's listener: metrics and health on an address of its own, with a key of its own."""

import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.admin_settings import AdminSettings
from proxy.admission import STOP_SECONDS
from proxy.errors import ApiError
from proxy.exposure import is_loopback
from proxy.handlers import ADMISSION, METRICS, alive, ready_of
from proxy.identity import digest_of
from proxy.replies import error_response

ADMIN = web.AppKey("admin", AdminSettings)
PUBLIC_APP = web.AppKey("public_app", web.Application)


def build_admin(settings: AdminSettings, public: web.Application) -> web.Application:
    """The operator's application, about what the clients' one does."""
    app = web.Application(middlewares=[for_operators])
    app[ADMIN] = settings
    app[PUBLIC_APP] = public
    app.router.add_get("/metrics", metrics, allow_head=False)
    app.router.add_get("/healthz", alive, allow_head=False)
    app.router.add_get("/readyz", readiness, allow_head=False)
    return app


async def metrics(request: web.Request) -> web.StreamResponse:
    public = request.app[PUBLIC_APP]
    found = public[METRICS]
    found.streams.set(public[ADMISSION].running)
    return web.Response(body=found.text(), headers={"content-type": CONTENT_TYPE_LATEST})


async def readiness(request: web.Request) -> web.StreamResponse:
    return await ready_of(request.app[PUBLIC_APP])


@web.middleware
async def for_operators(request: web.Request, handler: Any) -> web.StreamResponse:
    """Nobody else gets further, whatever they ask for."""
    try:
        check_operator(request.app[ADMIN], request.headers.getall(hdrs.AUTHORIZATION, []), request.headers.get("host"))
        response: web.StreamResponse = await handler(request)
    except ApiError as exc:
        return error_response(exc, {})
    except web.HTTPException as exc:
        return error_response(ApiError(exc.status, "There is no such endpoint here.", code="not_found"), {})
    return response


def check_operator(settings: AdminSettings, credentials: Sequence[str], host: str | None) -> None:
    """Raises ApiError."""
    if settings.key is None:
        # Without a key the listener is on loopback. A page in a browser here could reach it by a name of its own
        # that leads to 127.0.0.1; the browser then tells that name.
        name = (host or "").rpartition(":")[0] or (host or "")
        if not is_loopback(name.strip("[]")):
            raise ApiError(403, "Ask by a loopback address.", code="wrong_host")
        return
    given = [text.partition(" ") for text in credentials]
    token = given[0][2] if len(given) == 1 and given[0][0].lower() == "bearer" else ""
    if not hmac.compare_digest(digest_of(token), digest_of(settings.key.get_secret_value())):
        headers = {"www-authenticate": "Bearer"}
        raise ApiError(401, "The operator's key is missing or not valid.", code="invalid_api_key", headers=headers)


@asynccontextmanager
async def administered(settings: AdminSettings, public: web.Application) -> AsyncIterator[int | None]:
    """Serve operators until left; yields the port, None where no such listener is wanted. Raises OSError."""
    if settings.port is None:
        yield None
        return
    runner = web.AppRunner(build_admin(settings, public), access_log=None, shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
