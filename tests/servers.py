"""Weir on a real socket before a scripted upstream, with a scripted guard."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from proxy.app import running
from proxy.config import load_settings
from proxy.guard.protocol import Guard
from proxy.settings import Settings
from proxy.upstreams import Upstreams, make_upstreams
from tests.fakes import RawUpstream, ScriptedGuard, ScriptedUpstream
from tests.sockets import PATIENCE_SECONDS

# Upstream, guard and clients are on the loop as well, and what they do keeps it busy.
PATIENT = {"server.max_lag_seconds": 3600}


@dataclass
class Weir:
    url: str  # of the server, without /v1
    upstream: Any
    guard: Any

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Upstreams]:
    """The upstreams without a server."""
    upstreams = make_upstreams(settings)
    yield upstreams
    upstreams.retire()


@asynccontextmanager
async def weir(
    upstream: ScriptedUpstream | RawUpstream | None = None, guard: Guard | None = None, **overrides: Any
) -> AsyncIterator[Weir]:
    """Settings are given as `policy__mode="strict"`."""
    upstream, guard = upstream or ScriptedUpstream(), guard or ScriptedGuard()
    async with upstream.running():
        values = {"server.port": 0, "server.drain_seconds": 0.2, "upstream.base_url": upstream.url, **PATIENT}
        values |= {name.replace("__", "."): value for name, value in overrides.items()}
        settings = load_settings(overrides=values, environ={})
        async with running(settings, guard) as port:
            yield Weir(f"http://127.0.0.1:{port}", upstream, guard)


@asynccontextmanager
async def weir_before(
    upstreams: Mapping[str, ScriptedUpstream | RawUpstream],
    file: str,
    guard: Guard | None = None,
    environ: Mapping[str, str] | None = None,
    **overrides: Any,
) -> AsyncIterator[Weir]:
    """Before several upstreams: `file` has `{name}` where the address of each belongs."""
    guard = guard or ScriptedGuard()
    async with AsyncExitStack() as stack:
        for upstream in upstreams.values():
            await stack.enter_async_context(upstream.running())
        folder = Path(stack.enter_context(TemporaryDirectory()))
        text = file
        for name, upstream in upstreams.items():
            text = text.replace(f"{{{name}}}", f"{upstream.url}/v1")
        (folder / "weir.toml").write_text(text, encoding="utf-8")
        values = {"server.port": 0, "server.drain_seconds": 0.2, **PATIENT}
        values |= {name.replace("__", "."): value for name, value in overrides.items()}
        settings = load_settings(folder / "weir.toml", values, environ or {})
        port = await stack.enter_async_context(running(settings, guard))
        yield Weir(f"http://127.0.0.1:{port}", upstreams, guard)


class Records(logging.Handler):
    """The records that are written while it listens."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._more.set()

    async def next(self) -> Any:
        """The newest record, as soon as there is one."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._more.wait()
        self._more.clear()
        return json.loads(self.lines[-1])


@contextmanager
def recorded(records: Records | None = None) -> Iterator[Records]:
    logger, records = logging.getLogger("weir.records"), records or Records()
    level = logger.level
    logger.addHandler(records)
    logger.setLevel(logging.INFO)
    try:
        yield records
    finally:
        logger.removeHandler(records)
        logger.setLevel(level)
