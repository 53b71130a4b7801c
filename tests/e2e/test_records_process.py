"""Records of a server in a process of its own: its disk fills up and empties, and it is killed."""

import asyncio
import json
import resource
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.crews import scripted_guard
from tests.driver import answer, read
from tests.e2e.test_records import ASK, kept_by_now, until_kept
from tests.fakes import ScriptedUpstream
from tests.reliability.environment import ROOT, environment
from tests.sockets import PATIENCE_SECONDS, ask, http_request


@asynccontextmanager
async def serving(url: str, folder: Path) -> AsyncIterator[tuple[Process, str]]:
    """The real command; its log is a pipe, so that only the database can fill a disk."""
    async with scripted_guard() as guard:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", "--upstream", url, "--port", "0", "--records-file", "r.db"),
            env=environment(PYTHONPATH=str(ROOT), **guard),
            cwd=folder,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            while not (line := (await process.stderr.readline()).decode()).startswith("weir "):
                assert line, "it ended before it served"
            yield process, line.split(" ")[2].partition("/v1")[0]
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def streamed(url: str, count: int) -> None:
    for _ in range(count):
        async with asyncio.timeout(PATIENCE_SECONDS):
            reply = await ask(url, http_request(json.dumps(ASK).encode()))
        assert read(reply.body).is_done


# The disk of a running server is made full from outside, which other systems have no call for.
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limit of another process is Linux's")
async def test_a_full_disk_harms_no_stream_and_once_there_is_room_the_records_come(tmp_path: Path) -> None:
    file = tmp_path / "r.db"
    async with (
        ScriptedUpstream(answer(["one", " two"])).running() as upstream,
        serving(upstream.url, tmp_path) as (process, url),
    ):
        await streamed(url, 1)
        await until_kept(file, 1)
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, hard))
        await streamed(url, 50)
        assert len(kept_by_now(file)) < 51
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert len(await until_kept(file, 51)) == 51
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(3 * PATIENCE_SECONDS):
            said = (await process.communicate())[1].decode()
    assert "records: cannot be written" in said
    assert "records: are written again; 0 were lost" in said
    assert "Traceback" not in said


async def test_a_kill_leaves_a_database_that_is_read_and_written_on(tmp_path: Path) -> None:
    file = tmp_path / "r.db"
    async with ScriptedUpstream(answer(["one", " two"])).running() as upstream:
        async with serving(upstream.url, tmp_path) as (process, url):
            await streamed(url, 20)
            before = await until_kept(file, 20)
            await streamed(url, 5)
            process.kill()
            await process.wait()
        assert kept_by_now(file)[:20] == before
        async with serving(upstream.url, tmp_path) as (process, url):
            await streamed(url, 1)
            await until_kept(file, 21)
