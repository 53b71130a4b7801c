"""`weir serve`: from the settings to the exit status, and what is said on the way."""

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import http_parser, web

from proxy import __version__
from proxy.admin import CannotListen
from proxy.app import running
from proxy.config import ConfigError, require_upstream
from proxy.connections import allow_all_files
from proxy.current import Current
from proxy.exposure import is_loopback, require_identity
from proxy.guard.garbage import keep_what_is_loaded
from proxy.guard.protocol import Guard, GuardError
from proxy.guards import open_guard
from proxy.handlers import CURRENT
from proxy.loading import Loading, unless, warm
from proxy.log import record_log
from proxy.reload import Read, Reloader
from proxy.settings import Settings
from proxy.telemetry.exporter import require_exporter

# How long a thread may keep the interpreter from the event loop, which asks for it at every turn; Python's own is 5 ms.
SWITCH_SECONDS = 0.0005


async def serve_until_stopped(settings: Settings, read: Read) -> None:
    """Listens at once, and serves when the guard is there; on a port where another server may still serve, it listens
    no sooner. On SIGHUP the settings are read again.

    Raises ConfigError, GuardError, OSError.
    """
    stopped, reloader = asyncio.Event(), Reloader(read, settings)
    heed_signals(stopped, reloader)
    current: list[Current] = []

    def built(app: web.Application) -> None:
        current.append(app[CURRENT])
        reloader.attach(app[CURRENT])

    is_late = settings.server.reuse_port
    guard: Guard | None = await unless(stopped, load(settings)) if is_late else Loading()
    try:
        if guard is None:
            return
        async with running(settings, guard, built, reload=reloader.reload) as port:
            if not is_late:
                print(loading(settings, port), file=sys.stderr, flush=True)
                guard = await unless(stopped, load(settings))
                if guard is None:
                    return
                current[0].arrive(guard)
            keep_what_is_loaded()
            print(started(settings, guard, port), file=sys.stderr, flush=True)
            await reloader.run(stopped)
    finally:
        if guard is not None:
            await guard.close()


async def load(settings: Settings) -> Guard:
    """The guard, and what else takes a while. Raises GuardError."""
    warming = asyncio.get_running_loop().run_in_executor(None, warm)
    guard = await open_guard(settings)
    await warming
    return guard


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


def loading(settings: Settings, port: int) -> str:
    """What `weir serve` says once it listens, and cannot judge yet."""
    guard = settings.guard.address or ", ".join(settings.guard.replicas) or settings.guard.model
    return f"loading the guard {guard}; until then {_shown(settings.server.host)}:{port} answers with 503"


def started(settings: Settings, guard: Guard, port: int) -> str:
    """What `weir serve` says once it serves."""
    host = settings.server.host
    lines = [
        f"weir {__version__}: http://{_shown(host)}:{port}/v1{named_upstreams(settings)}",
        f"guard {guard.info.model}@{guard.info.revision}, policy {settings.policy.name}: {settings.policy.mode}, "
        f"{settings.policy.on_flag}, {settings.policy.release}{named_policies(settings)}",
    ]
    if settings.admin.port is not None:
        lines.append(f"operators: http://{_shown(settings.admin.host)}:{settings.admin.port}/ (console), /metrics")
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
    if isinstance(exc, CannotListen):
        return str(exc)
    if exc.errno == errno.EADDRINUSE:
        port = settings.server.port
        return f"Port {port} of {settings.server.host} is in use: pass --port, or stop what listens there."
    return f"Cannot start: {exc.strerror or exc}."
