"""`weir serve --workers N`: a parent that owns the port, the guard's engine and N processes that serve."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proxy.admin import administered
from proxy.config import ConfigError, Settings
from proxy.console.live import live_of
from proxy.console.shown import Scene
from proxy.crew import Crew
from proxy.guard.process import ProcessGuard
from proxy.guard.protocol import Guard
from proxy.guards import open_guard
from proxy.loading import Loading, refuse_while_loading, unless, warm
from proxy.policies import Policies
from proxy.reload import Read, Reload, Reloaded, Reloader
from proxy.server_settings import ServerSettings
from proxy.serving import heed_signals, loading, started


async def serve_with_workers(settings: Settings, read: Read) -> None:
    """As `serving.serve_until_stopped`. Raises ConfigError, CannotStart, GuardError, OSError."""
    stopped, reloader = asyncio.Event(), Reloader(read, settings)
    heed_signals(stopped, reloader)
    is_late = settings.server.reuse_port
    with held_port(settings.server) as port:
        crew = Crew(settings_of_workers(settings, port), is_late=is_late)
        reloader.attach(crew)
        several = Several(crew, reloader.reload)
        try:
            async with administered(settings.admin, several):
                if not is_late:
                    await unless(stopped, crew.listen())
                    print(loading(settings, port), file=sys.stderr, flush=True)
                guard = await unless(stopped, open_guard(settings))
                if guard is not None:
                    if settings.admin.port is not None:
                        await asyncio.to_thread(warm)  # for the console's playground
                    several.guard = guard
                    await _serve(settings, port, guard, crew, stopped, is_late=is_late)
                    await _keep(crew, reloader, stopped)
        finally:
            crew.close()
            await several.guard.close()


async def _serve(
    settings: Settings, port: int, guard: Guard, crew: Crew, stopped: asyncio.Event, *, is_late: bool
) -> None:
    """Raises CannotStart, OSError."""
    if isinstance(guard, ProcessGuard):
        crew.guard_at(f"unix:{guard.path}")
    if is_late:
        await unless(stopped, crew.listen())
    await unless(stopped, crew.serve())
    if not stopped.is_set():
        print(f"{started(settings, guard, port)}\n{settings.server.workers} workers", file=sys.stderr, flush=True)


async def _keep(crew: Crew, reloader: Reloader, stopped: asyncio.Event) -> None:
    """Until stopped, and all have drained."""
    async with asyncio.TaskGroup() as group:
        crew.keep(group)
        await reloader.run(stopped)
        crew.stop()


class Several:
    """An `admin.Teller` of all workers."""

    def __init__(self, crew: Crew, reload: Reload) -> None:
        self.guard: Guard = Loading()
        self._crew, self._reload = crew, reload

    def scene(self) -> Scene:
        refuse_while_loading(self.guard)
        return Scene(self._crew.settings, Policies(self._crew.settings), self.guard)

    async def live(self) -> dict[str, Any]:
        return live_of((await self._crew.metrics()).collect()) | {"draining": self._crew.is_stopping}

    async def metrics(self) -> bytes:
        return (await self._crew.metrics()).text()

    async def is_ready(self) -> bool:
        health = await self.guard.health()
        return health.is_ready and self._crew.is_whole and not self._crew.is_stopping

    async def reload(self) -> Reloaded:
        return await self._reload()


def settings_of_workers(settings: Settings, port: int) -> Settings:
    """Those of each: the port to share, and nothing for operators."""
    return settings.model_copy(
        update={
            "server": settings.server.model_copy(update={"port": port, "reuse_port": True}),
            "admin": settings.admin.model_copy(update={"port": None}),
        }
    )


@contextmanager
def held_port(server: ServerSettings) -> Iterator[int]:
    """Hold the port for workers to listen on; 0 becomes a free one. Raises ConfigError, OSError.

    The socket that holds it never listens, so no connection goes to it. Another server there is an error,
    unless `reuse_port` is set.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("[server] workers is more than 1, which needs SO_REUSEPORT, and this system has none.")
    found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    if not server.reuse_port:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    with socket.socket(family, kind, protocol) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
        yield holder.getsockname()[1]
