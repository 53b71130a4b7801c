"""One worker, as its parent meets it: over pipes."""

import asyncio
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from proxy.config import load_settings
from proxy.settings import Settings
from proxy.shared_usage import SharedMemory
from proxy.worker import LISTENING, READY, Said, Start
from tests.crews import scripted_guard
from tests.driver import WORDS, answer
from tests.e2e.test_streams import events
from tests.fakes import ScriptedUpstream
from tests.reliability.environment import ROOT, environment
from tests.sockets import PATIENCE_SECONDS, ask, connected, free_port, http_request


def settings_of(url: str, guard: dict[str, str], **more: Any) -> Settings:
    values = {"upstream.base_url": url, "server.port": free_port()}
    return load_settings(
        overrides=values | {name.replace("__", "."): value for name, value in more.items()}, environ=guard
    )


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    memory = SharedMemory(1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy.worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 22,
        pass_fds=(memory.fd,),
        env=environment(),
        cwd=ROOT,
    )
    try:
        tell(process, Start(settings, False, memory.fd, 1, 0))
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        memory.close()


def tell(process: asyncio.subprocess.Process, order: Start | Settings | int) -> None:
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(order))


async def heard(process: asyncio.subprocess.Process) -> Said:
    assert process.stdout is not None
    async with asyncio.timeout(5 * PATIENCE_SECONDS):
        return msgspec.json.decode(await process.stdout.readline(), type=Said)


async def readiness(url: str) -> int:
    return (await ask(url, http_request(b"", method="GET", path="/readyz"))).status


async def test_it_serves_adopts_counts_and_ends_its_streams_with_its_parent() -> None:
    upstream = ScriptedUpstream(answer(WORDS), stall_at=6)
    async with (
        upstream.running(),
        scripted_guard() as guard,
        started(settings := settings_of(upstream.url, guard)) as process,
    ):
        assert [await heard(process) for _ in range(2)] == [Said(LISTENING), Said(READY)]
        url = f"http://127.0.0.1:{settings.server.port}"
        assert await readiness(url) == 503, "it is ready, and others on its port may not be"
        tell(process, READY)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await readiness(url) != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        tell(process, settings.model_copy(update={"policy": settings.policy.model_copy(update={"name": "other"})}))
        tell(process, 7)
        assert (await heard(process)).number == 7
        async with connected(url) as client:
            await client.send(http_request(stream=True))
            await client.read_until(b" two")
            tell(process, 8)
            families = {family.name: family for family in (await heard(process)).families}
            assert families["weir_streams"].samples[0].value == 1
            assert process.stdin is not None
            process.stdin.close()
            reply = await client.reply()
        assert reply.headers["x-weir-policy"] == "other"
        assert not reply.is_complete
        assert (events(reply).error or {})["code"] == "shutting_down"
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 0


async def test_why_it_cannot_start_is_told() -> None:
    records = {"records__file": "/no/such/folder/r.db"}
    async with scripted_guard() as guard, started(settings_of("http://127.0.0.1:1", guard, **records)) as process:
        said = await heard(process)
        assert (said.status, await process.wait()) == (2, 2)
        assert "there is no folder /no/such/folder" in said.error


async def test_without_an_order_it_ends() -> None:
    async with scripted_guard() as guard, started(settings_of("http://127.0.0.1:1", guard)) as process:
        assert process.stdin is not None
        process.stdin.transport.abort()
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            await process.wait()
