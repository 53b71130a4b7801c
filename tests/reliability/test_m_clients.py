"""Section M of docs/reliability.md: what stands between us and the client."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.relay.peers import nginx_program, serves
from tests.driver import WORDS, answer
from tests.e2e.test_streams import events
from tests.fakes import ScriptedUpstream
from tests.servers import weir
from tests.sockets import PATIENCE_SECONDS, ask, connected, free_port, http_request

NGINX = nginx_program()
# nginx as it comes: it buffers what it proxies, and compresses text. Nothing is switched off for us.
SETTINGS = """
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    gzip on; gzip_min_length 0;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {url}; }} }}
}}
"""


@asynccontextmanager
async def nginx(url: str, folder: Path) -> AsyncIterator[str]:
    """In front of `url`; gives its own address."""
    assert NGINX is not None
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(SETTINGS.format(folder=folder, port=port, url=url), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(NGINX, "-c", str(file), "-p", str(folder))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await serves(port, "nginx"):  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


# No dependency of Weir's, and of the system's, not of the registry's.
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_m4_a_proxy_in_front_that_buffers_and_compresses_passes_every_event_on_at_once(tmp_path: Path) -> None:
    """The upstream goes on only when the client has got what it said before."""
    upstream = ScriptedUpstream(answer(WORDS), stall_at=4)
    async with weir(upstream) as server, nginx(server.url, tmp_path) as url, connected(url) as client:
        begun = time.monotonic()
        await client.send(http_request(stream=True, headers={"accept-encoding": "gzip"}))
        await client.read_until(b"two")
        assert time.monotonic() - begun < 10  # while the upstream still has most of its answer to say
        assert b"content-encoding" not in client.received.lower()
        assert b"text/event-stream" in client.received
    async with weir(ScriptedUpstream(answer(WORDS))) as server, nginx(server.url, tmp_path) as url:
        reply = await ask(url, http_request(stream=True, headers={"accept-encoding": "gzip"}))
        assert events(reply).content == "".join(WORDS)
        assert reply.is_complete
