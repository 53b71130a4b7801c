"""Weir in processes of their own, whose CPU and memory the system counts, each as after a long day: caches are full.

`python -m tests.reliability.apart` reads lines of settings as JSON and answers each with "PID PORT": a server, forked
from one that has read its vocabulary. Without a guard's own costs: everything is found safe, at once.
"""

import asyncio
import json
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxy.app import running
from proxy.config import load_settings
from proxy.loading import warm
from proxy.log import record_log
from proxy.retokenizer import Retokenizer
from proxy.risk import Risk, Role
from proxy.serving import event_loop_factory
from tests.fakes import QuickGuard, ScriptedGuard, ScriptedStream, harmless
from tests.reliability.environment import ROOT, environment
from tests.servers import PATIENT

# More than any cache of the retokenizer holds.
WORDS = 40_000
RARE = 50_000


class Server:
    """One of them, for whoever measures it."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid, self.url = pid, f"http://127.0.0.1:{port}"
        self._clock = (~pid << 3) | 2  # the system's clock of this process' CPU

    @property
    def cpu(self) -> float:
        """Seconds, of all its threads."""
        return time.clock_gettime(self._clock)

    @property
    def memory(self) -> int:
        """Bytes that are resident."""
        return self._status("VmRSS")

    @property
    def most_memory(self) -> int:
        """Bytes that were resident at once since `forget`."""
        return self._status("VmHWM")

    @property
    def files(self) -> int:
        """That are open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def allow(self, files: int) -> None:
        """So many open ones, those that are there included."""
        resource.prlimit(
            self.pid, resource.RLIMIT_NOFILE, (files, resource.prlimit(self.pid, resource.RLIMIT_NOFILE)[1])
        )

    def fill_disk(self, is_full: bool) -> None:
        """No file of it grows any more, or all may again."""
        most = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (1 if is_full else most, most))

    def forget(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) << 10


class Servers:
    """The process from which they are forked."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.reliability.apart"]
        pipe = subprocess.PIPE
        self._heard, log = os.pipe2(os.O_NONBLOCK)  # no file: their disk may be full
        os.set_blocking(log, True)
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), text=True, stdin=pipe, stdout=pipe, stderr=log
        )
        os.close(log)

    @contextmanager
    def one(self, **settings: Any) -> Iterator[Server]:
        """Settings are given as `policy__mode="strict"`. `delay`: of each verdict. `quick_loop=False`: asyncio's."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(settings) + "\n")
        self._process.stdin.flush()
        server = Server(*map(int, self._process.stdout.readline().split()))
        try:
            yield server
        finally:
            os.kill(server.pid, signal.SIGKILL)

    def said(self) -> bytes:
        """What they have written to the terminal since it was last asked."""
        try:
            return os.read(self._heard, 1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self._process.communicate()
        os.close(self._heard)


class Forgetful(QuickGuard):
    """Keeps nothing of a text, as if its engine were elsewhere. Each verdict takes it `delay` seconds."""

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple[ScriptedStream, list[Risk]]:
        return _ForgetfulStream(self, len(ids)), [harmless(role) for _ in read]


class _ForgetfulStream(ScriptedStream):
    def __init__(self, guard: ScriptedGuard, count: int) -> None:
        super().__init__(guard, [])
        self._count = count

    @property
    def position(self) -> int:
        return self._count

    async def judge(self, position: int, ids: Sequence[int]) -> list[Risk]:
        self._count = position + len(ids)
        await asyncio.sleep(self._guard.delay)
        return [harmless(Role.ASSISTANT)] * len(ids)

    def fork(self) -> ScriptedStream:
        return _ForgetfulStream(self._guard, self._count)

    async def close(self) -> None: ...


def fill_caches() -> None:
    dice = random.Random(1)
    retokenizer = Retokenizer()
    for _ in range(WORDS):
        word = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=7))
        for part in (" ", word[:3], word[3:]):
            retokenizer.feed(part)
    for first, last in ((0x300, 0x36F), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x20000, 0x2A6D0), (97, 122)):
        retokenizer.feed("".join(chr(dice.randint(first, last)) for _ in range(RARE)))


def map_files() -> None:
    """Have every page of the libraries that are loaded in this process' memory.

    A fork begins without them. Those that a request is the first to use would count as taken for it: half a MiB of
    Unicode's tables and the tokenizer's code, more or less as the system has more or less of the files in its cache.
    """
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps.readlines():
            place, rights, _, _, file, *_ = line.split()
            start, end = (int(address, 16) for address in place.split("-"))
            if file != "0" and rights.startswith("r"):
                # A byte of each: no buffer that is freed again, in which what is measured would find room.
                for page in range(start, end, mmap.PAGESIZE):
                    assert os.pread(memory.fileno(), 1, page)


def serve(given: Mapping[str, Any]) -> None:
    values = {name.replace("__", "."): value for name, value in given.items() if "__" in name}
    settings = load_settings(overrides={**PATIENT, "server.port": 0, "log.level": "warning", **values}, environ={})

    async def forever() -> None:
        async with running(settings, Forgetful(delay=given.get("delay", 0))) as port:
            print(os.getpid(), port, flush=True)
            await asyncio.Event().wait()

    factory = event_loop_factory() if given.get("quick_loop", True) else None
    with record_log(settings.log), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(forever())


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    warm()
    fill_caches()
    for line in sys.stdin:
        if not os.fork():
            sys.stdin.close()
            map_files()
            serve(json.loads(line))
            os._exit(0)


if __name__ == "__main__":
    main()
