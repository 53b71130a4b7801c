"""Several times the load that is admitted: `python -m tests.soak.overload --streams 50 --times 5 --seconds 20`.

Prints how long a refusal takes, from the connection on, and how far apart the chunks of admitted answers are, alone and
under overload. Server, upstream and clients are three processes; the guard is a stub. Exits with 1 where an admitted
answer was not whole.
"""

import argparse
import asyncio
import json
import logging
import random
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from proxy.app import running
from proxy.config import load_settings
from proxy.guard.garbage import keep_what_is_loaded
from proxy.serving import event_loop_factory
from tests.driver import answer
from tests.fakes import QuickGuard, ScriptedUpstream
from tests.sockets import connected, http_request

# What an upstream says, and how fast: 10 tokens a second for 4 s.
SAID = [" word"] * 40
PAUSE_SECONDS = 0.1
RETRY_SECONDS = 1.0
PROBE_SECONDS = 0.05


@dataclass
class Seen:
    """In seconds."""

    refusals: int = 0
    gaps: list[float] = field(default_factory=list)  # between two chunks of an admitted answer
    broken: int = 0


def probe(url: str, seconds: str) -> None:
    """Alone in its process, since the crowd's own is busy with itself: how long each refusal took, as JSON."""
    parts, end, found = urlsplit(url), time.monotonic() + float(seconds), []
    while time.monotonic() < end:
        begin = time.monotonic()
        with socket.create_connection((parts.hostname, parts.port)) as client:
            client.sendall(http_request(stream=True))
            if client.recv(1 << 16).startswith(b"HTTP/1.1 503 "):
                found.append(time.monotonic() - begin)
        time.sleep(PROBE_SECONDS)
    print(json.dumps(found), flush=True)


async def say(*_: str) -> None:
    async with ScriptedUpstream(answer(SAID), pause=PAUSE_SECONDS).running() as upstream:
        print(upstream.url, flush=True)
        await asyncio.Event().wait()


async def serve(upstream: str, streams: str) -> None:
    values = {"server.port": 0, "server.max_streams": int(streams), "upstream.base_url": upstream}
    async with running(load_settings(overrides=values, environ={}), QuickGuard()) as port:
        keep_what_is_loaded()
        print(f"http://127.0.0.1:{port}", flush=True)
        await asyncio.Event().wait()


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[str]:
    """This module in another process; yields the address that it says."""
    command = [sys.executable, "-m", "tests.soak.overload", *arguments]
    started = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=1 << 24)
    assert started.stdout is not None
    try:
        yield (await started.stdout.readline()).decode().strip()
    finally:
        started.terminate()
        await started.wait()


async def said(*arguments: str) -> str:
    async with process(*arguments) as line:
        return line


async def ask(url: str, seen: Seen) -> bool:
    """One request; whether it was admitted."""
    clock = asyncio.get_running_loop()
    async with asyncio.timeout(60), connected(url) as client:
        await client.send(http_request(stream=True))
        await client.read_until(b"\r\n\r\n")
        if not client.received.startswith(b"HTTP/1.1 200 "):
            seen.refusals += 1
            return False
        last = clock.time()
        while not client.received.endswith(b"0\r\n\r\n"):
            if not await client.more():
                break
            seen.gaps.append(clock.time() - last)
            last = clock.time()
        seen.broken += b"[DONE]" not in client.received
        return True


async def load(url: str, users: int, seconds: float) -> Seen:
    seen, clock = Seen(), asyncio.get_running_loop()
    end = clock.time() + seconds

    async def user(number: int) -> None:
        await asyncio.sleep(number / users)  # not all in the same moment
        while clock.time() < end:
            if not await ask(url, seen):
                await asyncio.sleep(RETRY_SECONDS * (0.5 + random.random()))

    async with asyncio.TaskGroup() as group:
        for number in range(users):
            group.create_task(user(number))
    return seen


def shown(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    found = sorted(seconds)
    at = {name: found[min(len(found) - 1, int(len(found) * share))] for name, share in (("p50", 0.5), ("p99", 0.99))}
    return f"{len(found)}, " + ", ".join(f"{name} {value * 1000:.1f} ms" for name, value in at.items())


async def overload(streams: int, times: int, seconds: float) -> tuple[Seen, Seen, list[float]]:
    """What was seen alone, and under overload, and the times of refusals."""
    async with process("--say") as upstream, process("--serve", upstream, str(streams)) as url:
        alone = await load(url, streams, seconds / 2)
        async with asyncio.TaskGroup() as group:
            probed = group.create_task(said("--probe", url, str(seconds)))
            full = await load(url, streams * times, seconds)
        return alone, full, json.loads(probed.result())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=50, help="requests that are admitted at once")
    parser.add_argument("--times", type=int, default=5, help="clients for each of them")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--say", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--probe", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.getLogger("weir").setLevel(logging.ERROR)
    if given.probe:
        probe(*given.probe)
        return 0
    if given.say or given.serve:
        with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            runner.run(say() if given.say else serve(*given.serve))
    alone, full, refusals = asyncio.run(overload(given.streams, given.times, given.seconds))
    print(f"alone: gaps {shown(alone.gaps)}")
    print(f"{given.times} times the load: gaps {shown(full.gaps)}; of {full.refusals} refusals {shown(refusals)}")
    print(f"broken answers: {alone.broken + full.broken}")
    return 1 if alone.broken + full.broken else 0


if __name__ == "__main__":
    sys.exit(main())
