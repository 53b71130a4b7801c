"""Builds and starts what a run needs, and stops all of it at the end."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
START_SECONDS = 60
STOP_SECONDS = 5

Command = Sequence[str | Path]


class CannotRun(Exception):
    """A program that does not build or start, with what it said."""


@dataclass(frozen=True)
class Tools:
    """Commands for the fake upstream and the load client."""

    upstream: Command
    client: Command
    is_native: bool


def build(folder: Path) -> Tools:
    """The C programs, compiled into `folder`; without a compiler, or off Linux, slower ones in Python."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        module = [sys.executable, "-m", "bench.relay.python_load"]
        return Tools([*module, "upstream"], [*module, "client"], is_native=False)
    for name in ("fake_upstream", "load_client"):
        command: Command = [compiler, "-O2", "-o", folder / name, HERE / f"{name}.c"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CannotRun(f"{name}.c does not compile:\n{done.stderr}")
    return Tools([folder / "fake_upstream"], [folder / "load_client"], is_native=True)


@dataclass(frozen=True)
class Place:
    """Where a process runs: on which cores, and whether before everything else on them."""

    cores: frozenset[int] = frozenset()
    is_realtime: bool = False

    def put(self, pid: int) -> None:
        """Raises PermissionError for a realtime place that the user may not have."""
        if self.cores:
            os.sched_setaffinity(pid, self.cores)
        if self.is_realtime:
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


def places(*, is_realtime: bool) -> tuple[Place, Place]:
    """One core for the proxy and the others for the load; all for both where there is one alone."""
    if not hasattr(os, "sched_getaffinity"):
        return Place(), Place()
    first, *others = sorted(os.sched_getaffinity(0))
    return Place(frozenset({first}), is_realtime), Place(frozenset(others or {first}), is_realtime)


RUNTIME, PERIOD = (Path(f"/proc/sys/kernel/sched_rt_{name}_us") for name in ("runtime", "period"))


def pause_ms(runtime: Path = RUNTIME, period: Path = PERIOD) -> float:
    """How long Linux stops realtime programs that fill a core, once each period; 0 where it does not.

    Source: Documentation/scheduler/sched-rt-group.rst; a runtime of -1 is no limit.
    """
    try:
        allowed, of = int(runtime.read_text()), int(period.read_text())
    except (OSError, ValueError):
        return 0.0
    return 0.0 if allowed < 0 else (of - allowed) / 1000


@dataclass(frozen=True)
class Server:
    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def started(command: Command, place: Place, log: Path) -> Iterator[Server]:
    """A server of ours, which prints its port as its first line."""
    with log.open("wb") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        place.put(process.pid)
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line.isdigit():
            said = log.read_text(errors="replace").strip().splitlines()
            raise CannotRun(f"it did not start: {said[-1] if said else 'no reason given'}")
        yield Server(process.pid, int(line))
    finally:
        stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


class Servers(ExitStack):
    """All that a run started, stopped when left."""

    def start(self, command: Command, place: Place, log: Path) -> Server:
        return self.enter_context(started(command, place, log))
