"""A mixed load for MINUTES, and what became of memory, descriptors, tasks and streams: `make soak MINUTES=30`.

Exits with 1 where a stream was lost, text leaked, or something is left when all is over.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.faults.engine import ScriptedEngine
from tests.faults.slow_model import newest_word
from tests.soak.figures import slope_of
from tests.soak.load import IDLE_SECONDS, Tally, Upstream, run_load

KINDS = ("MiB", "descriptors", "tasks", "guard streams")
# Before all: a load so short, for what is made once. Of the samples, the first share is warming up too.
WARM_SECONDS, WARM_SHARE = 1.0, 0.2
# After the last request, what is idle by then counts as before; and for what is left when all is over, this is waited.
SETTLED_SECONDS, PATIENCE_SECONDS = IDLE_SECONDS + 1.0, 30.0


@dataclass
class Soak:
    """All of a run. `samples` are of the server's process while it was loaded."""

    tally: Tally = field(default_factory=Tally)
    samples: list[dict[str, float]] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    slots: int = 0  # streams at the engine when all is over

    @property
    def left(self) -> list[str]:
        """What there is more of than before, idle both times."""
        kinds = [kind for kind in KINDS[1:] if self.after[kind] > self.before[kind]]
        return kinds + (["engine slots"] if self.slots else [])

    @property
    def is_good(self) -> bool:
        return not self.tally.lost and self.tally.leak <= 0 and not self.left


@contextlib.asynccontextmanager
async def served(upstream: str, guard: str, every: float) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, "-m", "tests.soak.server", upstream, guard, str(every)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


async def soak(minutes: float, streams: int, *, seed: int = 1, pace: float = 0.05, every: float = 1.0) -> Soak:
    found, upstream, engine = Soak(), Upstream(), ScriptedEngine(newest_word)
    engine.delay, engine.foreign = 2.5, 1 << 40  # a foreign verdict is nobody's, and not that of a stream beside it
    folder = tempfile.mkdtemp(prefix="weir-")
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with engine.running(f"{folder}/s"), served(base, f"{folder}/s", every) as process:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{int(await process.stdout.readline())}"

            async def sample() -> dict[str, float]:
                assert process.stdout is not None
                values: dict[str, float] = json.loads(await process.stdout.readline())
                return values

            async def now() -> dict[str, float]:
                asked = time.monotonic()
                while (values := await sample())["at"] < asked:
                    pass
                return values

            async def settled() -> None:
                until = time.monotonic() + PATIENCE_SECONDS
                while not found.after or (found.left and time.monotonic() < until):
                    found.after, found.slots = await now(), len(engine.streams)

            async def watch() -> None:
                while True:
                    found.samples.append(await sample())
                    show(found, minutes)

            load = {"streams": streams, "seed": seed, "pace": pace, "tally": found.tally}
            await run_load(url, upstream, engine, seconds=WARM_SECONDS, **load)  # type: ignore[arg-type]
            await asyncio.sleep(SETTLED_SECONDS)
            found.before = await now()
            watching = asyncio.get_running_loop().create_task(watch())
            await run_load(url, upstream, engine, seconds=minutes * 60, **load)  # type: ignore[arg-type]
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await settled()
    finally:
        server.close()
        shutil.rmtree(folder)
    return found


def show(found: Soak, minutes: float) -> None:
    if len(found.samples) % 30 == 0:
        done = (found.samples[-1]["at"] - found.samples[0]["at"]) / 60
        print(f"{done:.1f} of {minutes:g} minutes, {found.tally.ends.total()} streams", file=sys.stderr, flush=True)


def report(found: Soak) -> None:
    tally = found.tally
    ends = ", ".join(f"{count} {end}" for end, count in tally.ends.most_common())
    print(f"{tally.ends.total()} streams: {ends}; the guard lied {tally.lies} times")
    print(f"lost streams: {len(tally.lost)}; largest leak: {max(0, tally.leak)} characters")
    for one in tally.lost[:10]:
        print(f"  {one}")
    warm = found.samples[int(len(found.samples) * WARM_SHARE) :]
    for kind in KINDS:
        values = [sample[kind] for sample in warm]
        slope = slope_of([sample["at"] for sample in warm], values)
        print(f"{kind:>14}: {slope}; idle before {found.before[kind]:g}, after {found.after[kind]:g}")
    print(f"  engine slots: {found.slots} when all was over")
    if found.left:
        print(f"left behind: {', '.join(found.left)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--streams", type=int, default=40, help="requests under way at once")
    parser.add_argument("--pace", type=float, default=0.05, help="mean seconds between two chunks of a stream")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    found = asyncio.run(soak(given.minutes, given.streams, seed=given.seed, pace=given.pace))
    report(found)
    return 0 if found.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
