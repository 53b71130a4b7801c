"""Routes, start and stop."""

import asyncio
import errno
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import http_parser, web

from proxy import __version__
from proxy.admin import OneServer, administered
from proxy.admission import STOP_SECONDS, Admission
from proxy.config import ConfigError, require_upstream
from proxy.connections import Connection, Room, allow_all_files, most_connections, stop_listening
from proxy.doors import DOORS
from proxy.exchange import Service
from proxy.exposure import is_loopback, require_identity
from proxy.guard.protocol import Guard, GuardError
from proxy.guards import open_guard
from proxy.handlers import (
    ADMISSION,
    CALLERS,
    METRICS,
    SERVICE,
    STORED_RESPONSE,
    alive,
    errors_as_json,
    moderated,
    part_while_draining,
    ready,
    stored_response,
)
from proxy.identity import Callers
from proxy.log import record_log
from proxy.metrics import LoopLag, Metrics
from proxy.model_handlers import MODELS, models
from proxy.passthrough import ROUTES
from proxy.passthrough_handlers import passing
from proxy.policies import Policies
from proxy.reload import Read, Reloader
from proxy.retokenizer import Retokenizer
from proxy.settings import Settings
from proxy.store.places import kept_records
from proxy.telemetry.exporter import open_telemetry, require_exporter
from proxy.token_handlers import COUNT_TOKENS, count_tokens
from proxy.upstreams import open_upstreams
from proxy.verdict_handlers import GUARDRAIL, MODERATIONS, guardrail, moderations

# From a connection to its request: a client sends it as soon as it is connected.
LAST_ASK_SECONDS = 0.25
# How long a thread may keep the interpreter from the event loop, which asks for it at every turn; Python's own is 5 ms.
SWITCH_SECONDS = 0.0005


def build_app(settings: Settings, guard: Guard) -> web.Application:
    """The application around a guard that is ready. The caller closes the guard."""
    app = web.Application(middlewares=[errors_as_json], client_max_size=settings.server.max_body_bytes)
    app[ADMISSION] = Admission(settings.server.max_streams)
    app[CALLERS] = Callers(settings.auth)
    app[METRICS] = Metrics(guard)

    async def upstream_sessions(app: web.Application) -> AsyncIterator[None]:
        found = app[METRICS]
        async with (
            open_upstreams(settings) as upstreams,
            kept_records(settings) as records,
            open_telemetry(settings, found.count_spans) as telemetry,
        ):
            app[SERVICE] = service = Service(
                settings, Policies(settings), guard, upstreams, records, found.hold_times, telemetry
            )
            yield
            service.aside.close()

    app.cleanup_ctx.append(upstream_sessions)
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
) -> AsyncIterator[int]:
    """Serve until left; yields the port. Leaving it takes requests for `pre_stop_seconds` more, and lets
    running answers finish within `drain_seconds`; neither where that is hopeless, since the guard is gone for good.
    """
    app = build_app(settings, guard)
    # A client that leaves, or closes its sending side alone, frees the upstream and the guard at once.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=STOP_SECONDS)
    await asyncio.to_thread(_warm)
    await runner.setup()
    on_built(app)
    lag = LoopLag(app[METRICS])
    try:
        server = runner.server
        assert server is not None  # made by setup()
        room = Room(most_connections(settings.server), app[METRICS].refused)
        listener = await asyncio.get_running_loop().create_server(
            lambda: Connection(server, settings.server, room),
            settings.server.host,
            settings.server.port,
            backlog=1024,
            reuse_port=settings.server.reuse_port or None,
        )
        async with administered(settings.admin, OneServer(app)):
            try:
                yield listener.sockets[0].getsockname()[1]
            finally:
                app[ADMISSION].is_draining = True
                pre_stop = 0.0 if is_hopeless() else settings.server.pre_stop_seconds
                await asyncio.sleep(pre_stop)
                await stop_listening(listener)
                # Whoever connected last has not asked yet.
                await asyncio.sleep(min(pre_stop, LAST_ASK_SECONDS))
                await app[ADMISSION].drain(0.0 if is_hopeless() else settings.server.drain_seconds)
    finally:
        lag.close()
        await runner.cleanup()


def _warm() -> None:
    """Build the retokenizer's tables: a second or so, for which the first request would hold everyone up."""
    Retokenizer().feed("warm up")


def keep_what_is_loaded() -> None:
    """Modules and tables stay to the end. Looking for garbage in them takes 0.2 s, in which no stream moves."""
    gc.collect()
    gc.freeze()


async def serve_until_stopped(settings: Settings, read: Read) -> None:
    """On SIGHUP the settings are read again. Raises GuardError, OSError."""
    stopped, reloader = asyncio.Event(), Reloader(read, settings)
    heed_signals(stopped, reloader)
    guard = await open_guard(settings)
    try:
        async with (
            running(settings, guard, lambda app: reloader.attach(app[SERVICE])) as port,
            asyncio.TaskGroup() as group,
        ):
            reloading = group.create_task(reloader.run())
            keep_what_is_loaded()
            print(started(settings, guard, port), file=sys.stderr, flush=True)
            await stopped.wait()
            reloading.cancel()
    finally:
        await guard.close()


def heed_signals(stopped: asyncio.Event, reloader: Reloader) -> None:
    """SIGINT and SIGTERM stop; SIGHUP has the settings read again, unless a terminal has gone away."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if hasattr(signal, "SIGHUP"):
        ends_with_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and has_terminal()

        def hang_up() -> None:
            (stopped if ends_with_terminal and not has_terminal() else reloader.asked).set()

        loop.add_signal_handler(signal.SIGHUP, hang_up)


def has_terminal() -> bool:
    """Whether a terminal can still end us by going away."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def started(settings: Settings, guard: Guard, port: int) -> str:
    """What `weir serve` says once it listens."""
    host = settings.server.host
    lines = [
        f"weir {__version__}: http://{_shown(host)}:{port}/v1{named_upstreams(settings)}",
        f"guard {guard.info.model}@{guard.info.revision}, policy {settings.policy.name}: {settings.policy.mode}, "
        f"{settings.policy.on_flag}, {settings.policy.release}{named_policies(settings)}",
    ]
    if settings.admin.port is not None:
        page = "/ (console), " if settings.server.workers == 1 else ""
        lines.append(f"operators: http://{_shown(settings.admin.host)}:{settings.admin.port}{page}/metrics")
    if guard.info.model == "embedded":
        lines.append("The embedded guard is demo grade: use --guard Qwen/Qwen3Guard-Stream-0.6B for real users.")
        if not is_loopback(host):
            lines.append(f"WARNING: a demo-grade guard answers on {host}, which others can reach.")
    if settings.guard.on_failure == "open":
        lines.append("WARNING: guard.on_failure = open: answers pass unjudged while the guard fails.")
    return "\n".join(lines)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def named_policies(settings: Settings) -> str:
    """That there are more, and how many rules choose among them."""
    more, rules = len(settings.policies), len(settings.rules)
    return f"; {more} more by {rules} rule{'s' * (rules != 1)}" if more else ""


def named_upstreams(settings: Settings) -> str:
    """The address of the one, or a line for each of several and what it serves."""
    if not settings.upstream_tables:
        return f" -> {settings.upstream.base_url}"
    served = ((", ".join(one.models or ("all other models",)), one) for one in settings.upstreams)
    return "".join(f"\n  {models} -> {one.name}, {one.base_url}" for models, one in served)


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where it installs; None, asyncio's own, elsewhere (Windows, PyPy)."""
    try:
        import uvloop  # optional: pyproject names it for the platforms that have it
    except ImportError:
        return None
    return uvloop.new_event_loop


class CannotStart(Exception):
    """A part of the server has said why not: a sentence, and the exit status that goes with it."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


Serving = Callable[[Settings, Read], Coroutine[Any, Any, None]]


def serve(settings: Settings, read: Read, run: Serving | None = None) -> int:
    """Run until SIGINT or SIGTERM; returns the exit status. Problems are sentences on stderr.

    `read` reads the settings again. `run` takes the place of `serve_until_stopped`.
    """
    try:
        require_upstream(settings)
        require_identity(settings)
        require_exporter(settings)
        allow_all_files()
        if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
            raise ConfigError("aiohttp runs without its C parser, which is unsafe to expose: reinstall aiohttp.")
        sys.setswitchinterval(SWITCH_SECONDS)
        with record_log(settings.log), asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            runner.run((run or serve_until_stopped)(settings, read))
    except PROBLEMS as exc:
        problem = problem_of(settings, exc)
        print(problem, file=sys.stderr)
        return problem.status
    return 0


PROBLEMS = (CannotStart, ConfigError, GuardError, OSError)


def problem_of(settings: Settings, exc: BaseException) -> CannotStart:
    """One of PROBLEMS in a sentence for whoever has started us."""
    if isinstance(exc, CannotStart):
        return exc
    if isinstance(exc, ConfigError):
        return CannotStart(str(exc), 2)
    if isinstance(exc, OSError):
        return CannotStart(_os_error(settings, exc), 1)
    return CannotStart(f"The guard cannot be started: {exc}", 1)


def _os_error(settings: Settings, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        port = settings.server.port
        return f"Port {port} of {settings.server.host} is in use: pass --port, or stop what listens there."
    return f"Cannot start: {exc.strerror or exc}."
