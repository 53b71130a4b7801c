"""Weir on a real socket before a scripted upstream, with a scripted guard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from proxy.app import running
from proxy.config import load_settings
from proxy.guard.protocol import Guard
from tests.fakes import ScriptedGuard, ScriptedUpstream


@dataclass
class Weir:
    url: str  # of the server, without /v1
    upstream: ScriptedUpstream
    guard: Guard

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


@asynccontextmanager
async def weir(
    upstream: ScriptedUpstream | None = None, guard: Guard | None = None, **overrides: Any
) -> AsyncIterator[Weir]:
    """Settings are given as `policy__mode="strict"`."""
    upstream, guard = upstream or ScriptedUpstream(), guard or ScriptedGuard()
    async with upstream.running():
        values = {"server.port": 0, "server.drain_seconds": 0.2, "upstream.base_url": upstream.url}
        values |= {name.replace("__", "."): value for name, value in overrides.items()}
        settings = load_settings(overrides=values, environ={})
        async with running(settings, guard) as port:
            yield Weir(f"http://127.0.0.1:{port}", upstream, guard)
