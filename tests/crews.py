"""`weir serve` as processes of its own, with several workers or with one."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.engine import ScriptedEngine
from tests.reliability.environment import ROOT, environment
from tests.sockets import PATIENCE_SECONDS


@dataclass
class Serving:
    process: asyncio.subprocess.Process
    url: str = ""

    @property
    def workers(self) -> set[int]:
        return children(self.process.pid, "proxy.worker")

    @property
    def engine(self) -> int:
        """The engine's own process, below the one that watches over it."""
        [watcher] = children(self.process.pid, "proxy.guard.supervisor")
        return min(children(watcher))

    async def said(self, words: bytes) -> bytes:
        assert self.process.stderr is not None
        while words not in (line := await self.process.stderr.readline()):
            assert line, f"it ended before it said {words!r}"
        return line

    async def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(3 * PATIENCE_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def scripted_guard() -> AsyncIterator[dict[str, str]]:
    """The setting that names an engine which is a script: a server with it needs no torch, and starts in a third of
    the time."""
    with TemporaryDirectory(prefix="weir-") as folder:
        async with ScriptedEngine().running(f"{folder}/s"):
            yield {"WEIR_GUARD__ADDRESS": f"unix:{folder}/s"}


@asynccontextmanager
async def serving(upstream: str, *flags: str, **environ: str) -> AsyncIterator[Serving]:
    """From its last line at the start to its end; killed where it has not ended by then."""
    async with starting(upstream, *flags, **environ) as found:
        found.url = (await found.said(b"weir ")).decode().split()[2].removesuffix("/v1")
        await found.said(b" workers")
        yield found


@asynccontextmanager
async def starting(upstream: str, *flags: str, **environ: str) -> AsyncIterator[Serving]:
    """From its very beginning."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve", "--upstream", upstream, "--threads", "1", *flags),
        env=environment(WEIR_LOG__LEVEL="warning", **environ),  # nobody reads more
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Serving(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def children(pid: int, words: str = "") -> set[int]:
    asked = ["pgrep", "-P", str(pid), *(["-f", words] if words else [])]
    return {int(one) for one in subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()}


def holders(server_port: int, pids: Iterable[int]) -> dict[int, int]:
    """By the client's port of each connection to `server_port`: which of the processes has it."""
    inodes = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        if parts[3] == "01" and int(parts[1].partition(":")[2], 16) == server_port:  # 01: established
            inodes[parts[9]] = int(parts[2].partition(":")[2], 16)
    found = {}
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(file))
                if match and match[1] in inodes:
                    found[inodes[match[1]]] = pid
    return found


async def until_dead(pids: Iterable[int], seconds: float = 3 * PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while any(is_alive(pid) for pid in pids):  # noqa: ASYNC110 (nobody tells of another's child)
            await asyncio.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
