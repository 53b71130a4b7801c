"""`weir serve --workers N`: a parent that owns the port, the guard's engine and N processes that serve."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.admin import administered
from proxy.app import heed_signals, started
from proxy.config import ConfigError, Settings
from proxy.crew import Crew
from proxy.guard.process import ProcessGuard
from proxy.guard.protocol import Guard
from proxy.guards import open_guard
from proxy.reload import Read, Reloader
from proxy.settings import ServerSettings


async def serve_with_workers(settings: Settings, read: Read) -> None:
    """As `app.serve_until_stopped`. Raises ConfigError, CannotStart, GuardError, OSError."""
    stopped, reloader = asyncio.Event(), Reloader(read, settings)
    heed_signals(stopped, reloader)
    with held_port(settings.server) as port:
        guard = await open_guard(settings)
        try:
            crew = Crew(settings_of_workers(settings, port, guard))
            reloader.attach(crew)
            try:
                await crew.start()
                await _serve(settings, port, guard, crew, reloader, stopped)
            finally:
                crew.end()
        finally:
            await guard.close()


async def _serve(
    settings: Settings, port: int, guard: Guard, crew: Crew, reloader: Reloader, stopped: asyncio.Event
) -> None:
    async with administered(settings.admin, Several(guard, crew)), asyncio.TaskGroup() as group:
        reloading = group.create_task(reloader.run())
        crew.keep(group)
        print(f"{started(settings, guard, port)}\n{settings.server.workers} workers", file=sys.stderr, flush=True)
        await stopped.wait()
        reloading.cancel()
        crew.stop()


class Several:
    """An `admin.Teller` of all workers."""

    def __init__(self, guard: Guard, crew: Crew) -> None:
        self._guard, self._crew = guard, crew
        self.public = None

    async def metrics(self) -> bytes:
        return await self._crew.metrics()

    async def is_ready(self) -> bool:
        health = await self._guard.health()
        return health.is_ready and not self._crew.is_stopping


def settings_of_workers(settings: Settings, port: int, guard: Guard) -> Settings:
    """Those of each: the port to share, the parent's guard, and nothing for operators."""
    changed = {
        "server": settings.server.model_copy(update={"port": port, "reuse_port": True}),
        "admin": settings.admin.model_copy(update={"port": None}),
    }
    if isinstance(guard, ProcessGuard):
        changed["guard"] = settings.guard.model_copy(update={"address": f"unix:{guard.path}"})
    return settings.model_copy(update=changed)


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
