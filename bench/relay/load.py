"""One measurement: a load on one port, and the CPU of the process behind it over the same window."""

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.relay.programs import ROOT, Command, Place

# One chunk in ten is stamped, the others are a word: less than two tokens a chunk, as an LLM server sends them.
STAMP_EVERY = 10


@dataclass(frozen=True)
class Point:
    """A load: `streams` long answers of `rate` chunks a second, and short requests beside them."""

    name: str
    streams: int = 0
    rate: float = 0.0
    probes: int = 0
    think_ms: int = 5

    def arguments(self, port: int, warm: float, measure: float) -> list[str]:
        given = {"p": port, "c": self.streams, "r": self.rate, "q": self.probes, "Q": 1, "t": self.think_ms}
        given |= {"w": warm, "m": measure, "S": STAMP_EVERY}
        return [word for name, value in given.items() for word in (f"-{name}", str(value))]


@dataclass(frozen=True)
class Sample:
    """What one measurement found. Times in microseconds, one way; CPU in seconds over the window."""

    cpu: float | None
    seconds: float
    chunks: int
    requests: int
    errors: int
    first_error: str
    chunk_p50: float
    chunk_p99: float
    first_p50: float
    first_p99: float
    chunk_times: Sequence[float] = ()  # at each hundredth of the chunks, from the fastest to the slowest

    @property
    def cpu_per_chunk(self) -> float | None:
        return self.cpu * 1e6 / self.chunks if self.cpu is not None and self.chunks else None

    @property
    def cpu_per_request(self) -> float | None:
        return self.cpu * 1e6 / self.requests if self.cpu is not None and self.requests else None


def measure(
    client: Command, port: int, point: Point, *, pid: int | None, place: Place, warm: float, seconds: float
) -> Sample:
    """Run the load client once. `pid` is the proxy's, None where there is none."""
    command = [*client, *point.arguments(port, warm, seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        place.put(process.pid)
        assert process.stdout is not None
        used: list[float | None] = []
        for word in ("begin", "end"):
            line = process.stdout.readline().strip()
            if line != word:
                raise RuntimeError(f"the load client said {line!r} instead of {word!r}")
            used.append(cpu_seconds(pid) if pid is not None else None)
        found: dict[str, Any] = json.loads(process.stdout.readline())
    begin, end = used
    cpu = end - begin if begin is not None and end is not None else None
    names = set(Sample.__dataclass_fields__) - {"cpu"}
    return Sample(cpu=cpu, **{name: value for name, value in found.items() if name in names})


def cpu_seconds(pid: int) -> float | None:
    """CPU time of a process and its children so far, to the microsecond; None where the system does not tell."""
    times = [_own_cpu_seconds(one) for one in (pid, *children(pid))]
    known = [one for one in times if one is not None]
    return sum(known) if known else None


def _own_cpu_seconds(pid: int) -> float | None:
    try:
        return time.clock_gettime(~pid << 3 | 2)  # Linux: the clock id of another process's CPU time
    except OSError:
        return None


def children(pid: int) -> Sequence[int]:
    found = [int(one) for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()]
    return [*found, *(grandchild for child in found for grandchild in children(child))]
