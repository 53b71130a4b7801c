"""Raw bytes to a server on a socket: an answer that is one, never a 500, and the server goes on.

The version of an answer is that of its request, 0.9 included: no matter to whoever says such a thing.
"""

import asyncio
import re
from contextlib import suppress

from tests.servers import Weir
from tests.sockets import ask, connected, http_request

WAIT_SECONDS = 0.05
HEALTH = http_request(b"", method="GET", path="/healthz")


async def check_http(server: Weir, data: bytes) -> None:
    received = b""
    with suppress(ConnectionError):
        async with connected(server.url) as client:
            await client.send(data)
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS):
                    await client.closed()
            received = client.received
    assert received == b"" or re.match(rb"HTTP/\d\.\d [1-5]\d\d ", received)
    assert not re.match(rb"HTTP/\d\.\d 500", received)
    assert b"Traceback" not in received
    assert (await ask(server.url, HEALTH)).status == 200
