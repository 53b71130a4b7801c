"""A server with its operator's listener, and what that tells."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from proxy.guard.protocol import Guard
from tests.fakes import RawUpstream, ScriptedUpstream
from tests.servers import Weir, weir
from tests.sockets import ask, free_port, http_request

OPERATOR = "operators-key-0123456789"


@asynccontextmanager
async def operated(
    upstream: ScriptedUpstream | RawUpstream | None = None, guard: Guard | None = None, **overrides: Any
) -> AsyncIterator[tuple[Weir, str]]:
    """The server, and the address of its operator's listener."""
    async with weir(upstream, guard, admin__port=(port := free_port()), admin__key=OPERATOR, **overrides) as server:
        yield server, f"http://127.0.0.1:{port}"


async def told(url: str) -> bytes:
    """What the operator reads of /metrics."""
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    reply = await ask(url, http_request(b"", method="GET", path="/metrics", headers=headers))
    assert reply.status == 200
    return reply.body
