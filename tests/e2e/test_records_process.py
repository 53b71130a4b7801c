"""Records of a server in a process of its own: its disk fills up and empties, and it is killed."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.driver import answer, read
from tests.e2e.test_records import ASK, kept_by_now, until_kept
from tests.fakes import ScriptedUpstream
from tests.sockets import PATIENCE_SECONDS, ask, http_request

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def serving(url: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The real command with the embedded guard; its log is a pipe, so that only the database can fill a disk."""
    flags = ["--upstream", url, "--port", "0", "--device", "cpu", "--threads", "1", "--records-file", "r.db"]
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "serve", *flags],
        env={name: text for name, text in os.environ.items() if not name.startswith("WEIR_")}
        | {"PYTHONPATH": str(ROOT), "WEIR_GUARD__PROCESS": "false"},
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("loading the guard")
        line = process.stderr.readline()
        yield process, line.split(" ")[2].partition("/v1")[0]
    finally:
        process.kill()
        process.communicate(timeout=3 * PATIENCE_SECONDS)


async def streamed(url: str, count: int) -> None:
    for _ in range(count):
        async with asyncio.timeout(PATIENCE_SECONDS):
            reply = await ask(url, http_request(json.dumps(ASK).encode()))
        assert read(reply.body).is_done


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limit of another process is Linux's")
async def test_a_full_disk_harms_no_stream_and_once_there_is_room_the_records_come(tmp_path: Path) -> None:
    file = tmp_path / "r.db"
    async with ScriptedUpstream(answer(["one", " two"])).running() as upstream:
        with serving(upstream.url, tmp_path) as (process, url):
            await streamed(url, 1)
            await until_kept(file, 1)
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, hard))
            await streamed(url, 50)
            assert len(kept_by_now(file)) < 51
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
            assert len(await until_kept(file, 51)) == 51
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=3 * PATIENCE_SECONDS)
    assert "records: cannot be written" in said
    assert "records: are written again; 0 were lost" in said
    assert "Traceback" not in said


async def test_a_kill_leaves_a_database_that_is_read_and_written_on(tmp_path: Path) -> None:
    file = tmp_path / "r.db"
    async with ScriptedUpstream(answer(["one", " two"])).running() as upstream:
        with serving(upstream.url, tmp_path) as (process, url):
            await streamed(url, 20)
            before = await until_kept(file, 20)
            await streamed(url, 5)
            process.kill()
            process.communicate(timeout=3 * PATIENCE_SECONDS)
        assert kept_by_now(file)[:20] == before
        with serving(upstream.url, tmp_path) as (process, url):
            await streamed(url, 1)
            await until_kept(file, 21)
