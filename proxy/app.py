"""Routes, and one server around them from its first connection to its last."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from proxy.admin import OneServer, administered
from proxy.admission import STOP_SECONDS, Admission
from proxy.connections import Connection, Room, hear_out, most_connections, stop_listening, tell_seldom_of_files
from proxy.current import Current
from proxy.doors import DOORS
from proxy.entrance import CALLERS, HOSTS, errors_as_json, part_while_draining
from proxy.exchange import Service
from proxy.guard.protocol import Guard
from proxy.handlers import (
    ADMISSION,
    CURRENT,
    METRICS,
    STORED_RESPONSE,
    alive,
    moderated,
    ready,
    stored_response,
)
from proxy.hosts import Hosts
from proxy.identity import Callers, UsageOf
from proxy.loading import Loading, warm
from proxy.metrics import LoopLag, Metrics
from proxy.model_handlers import MODELS, models
from proxy.passthrough import ROUTES
from proxy.passthrough_handlers import passing
from proxy.policies import Policies
from proxy.reload import Reload
from proxy.settings import Settings
from proxy.shedding import Shedding
from proxy.store.places import kept_records
from proxy.telemetry.exporter import open_telemetry
from proxy.token_handlers import COUNT_TOKENS, count_tokens
from proxy.upstreams import make_upstreams
from proxy.verdict_handlers import GUARDRAIL, MODERATIONS, guardrail, moderations

# From a connection to its request: a client sends it as soon as it is connected.
LAST_ASK_SECONDS = 0.25


def build_app(settings: Settings, guard: Guard, usage_of: UsageOf | None = None) -> web.Application:
    """The application around a guard, which may still be `Loading`. The caller closes it."""
    app = web.Application(middlewares=[errors_as_json], client_max_size=settings.server.max_body_bytes)
    app[ADMISSION] = admission = Admission(settings.server.max_streams, settings.server.max_lag_seconds)
    app[CALLERS] = callers = Callers(settings.auth, usage_of)
    app[HOSTS] = hosts = Hosts(settings)
    app[METRICS] = Metrics(lambda: app[CURRENT].now.guard)

    def adopt(settings: Settings) -> None:
        admission.limit, admission.max_lag_seconds = settings.server.max_streams, settings.server.max_lag_seconds
        callers.adopt(settings.auth)
        hosts.adopt(settings)

    async def current(app: web.Application) -> AsyncIterator[None]:
        found = app[METRICS]
        async with (
            kept_records(settings) as records,
            open_telemetry(settings, found.count_spans) as telemetry,
        ):
            upstreams = make_upstreams(settings)
            service = Service(settings, Policies(settings), guard, upstreams, records, found.hold_times, telemetry)
            app[CURRENT] = Current(service)
            app[CURRENT].follow(adopt)
            yield
            app[CURRENT].now.upstreams.retire()
            service.aside.close()

    app.cleanup_ctx.append(current)
    app.on_response_prepare.append(part_while_draining)
    for path in DOORS:
        app.router.add_post(path, moderated)
    allowed = [route for route in ROUTES if route.family in settings.passthrough.allow]
    for route in allowed:
        app.router.add_route(route.method, route.pattern, passing(route))
    ours = {MODERATIONS: moderations, GUARDRAIL: guardrail, COUNT_TOKENS: count_tokens}
    for path in ours.keys() - {route.path for route in allowed}:
        app.router.add_post(path, ours[path])
    read = {STORED_RESPONSE: stored_response, MODELS: models, "/healthz": alive, "/readyz": ready}
    for path, handler in read.items():
        app.router.add_get(path, handler, allow_head=False)
    return app


@asynccontextmanager
async def running(
    settings: Settings,
    guard: Guard,
    on_built: Callable[[web.Application], None] = lambda _: None,
    is_hopeless: Callable[[], bool] = lambda: False,
    reload: Reload | None = None,
    usage_of: UsageOf | None = None,
) -> AsyncIterator[int]:
    """Serve until left; yields the port. Leaving it takes requests for `pre_stop_seconds` more, and lets
    running answers finish within `drain_seconds`; neither where that is hopeless, since the guard is gone for good.
    """
    app = build_app(settings, guard, usage_of)
    # A client that leaves, or closes its sending side alone, frees the upstream and the guard at once.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=STOP_SECONDS)
    if not isinstance(guard, Loading):
        await asyncio.to_thread(warm)
    await runner.setup()
    on_built(app)
    tell_seldom_of_files(asyncio.get_running_loop())
    lag = LoopLag(app[METRICS])
    app[ADMISSION].lag = lambda: lag.lasting
    until = 0.0
    try:
        listener = await _listen(app, runner)
        async with administered(settings.admin, OneServer(app, reload)):
            try:
                yield listener.sockets[0].getsockname()[1]
            finally:
                until = await _drain(app, listener, is_hopeless=is_hopeless() or app[CURRENT].is_loading)
    finally:
        lag.close()
        await _hear_out(app, runner, until)
        await runner.cleanup()


async def _listen(app: web.Application, runner: web.AppRunner) -> asyncio.Server:
    """Raises OSError."""
    server, current = runner.server, app[CURRENT]
    assert server is not None  # made by setup()
    settings = current.now.settings.server
    room = Room(most_connections(settings), app[METRICS].refused, settings.max_connections_per_address)

    def adopt(settings: Settings) -> None:
        room.limit = most_connections(settings.server)
        room.per_address = settings.server.max_connections_per_address

    current.follow(adopt)
    shedding = Shedding(app[ADMISSION].refusal, app[METRICS].shed)
    return await asyncio.get_running_loop().create_server(
        lambda: Connection(server, current.now.settings.server, room, shedding),
        settings.host,
        settings.port,
        backlog=1024,
        reuse_port=settings.reuse_port or None,
    )


async def _hear_out(app: web.Application, runner: web.AppRunner, until: float) -> None:
    """The last requests on connections that are kept have what is left of the time to drain."""
    assert runner.server is not None  # made by setup()
    await hear_out(runner.server)
    await app[ADMISSION].drain(max(0.0, until - asyncio.get_running_loop().time()))


async def _drain(app: web.Application, listener: asyncio.Server, *, is_hopeless: bool) -> float:
    """Returns the time of the loop's clock until which requests may run."""
    settings, admission = app[CURRENT].now.settings.server, app[ADMISSION]
    admission.is_draining = True
    pre_stop = 0.0 if is_hopeless else settings.pre_stop_seconds
    await asyncio.sleep(pre_stop)
    await stop_listening(listener)
    # Whoever connected last has not asked yet.
    await asyncio.sleep(min(pre_stop, LAST_ASK_SECONDS))
    seconds = 0.0 if is_hopeless else settings.drain_seconds
    until = asyncio.get_running_loop().time() + seconds
    await admission.drain(seconds)
    return until
