"""Weir as it serves, with a guard that costs nothing, with the door of an engine that costs nothing, or embedded.

`python -m bench.relay.weir_server --upstream URL --guard stub`; with `--processes 2`, two of them on one port.
"""

import argparse
import asyncio
import cProfile
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvloop

from bench.relay.engine import INFO, VOCABULARY, SafeLink
from bench.relay.serving import free_port, until_terminated
from proxy.app import running
from proxy.config import load_settings
from proxy.guard.door import GuardDoor
from proxy.guard.garbage import keep_what_is_loaded
from proxy.guard.protocol import Guard, GuardStream, Health, Heard
from proxy.guard.settings import GuardSettings
from proxy.guards import open_guard
from proxy.log import record_log
from proxy.risk import PROMPT_CATEGORIES, RESPONSE_CATEGORIES, Category, Risk, RiskLevel, Role
from proxy.settings import Settings


def safe(categories: int) -> Risk:
    level = 0.998, 0.001, 0.001
    return Risk(RiskLevel.SAFE, Category.VIOLENT, level[0], 1 / categories, level, (1 / categories,) * categories)


SAFE_PROMPT, SAFE_TOKEN = safe(len(PROMPT_CATEGORIES)), safe(len(RESPONSE_CATEGORIES))


class StubGuard:
    """Everything is safe, at once."""

    info = INFO

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple[GuardStream, list[Risk]]:
        return StubStream(len(ids)), [SAFE_PROMPT] * len(read)

    async def health(self) -> Health:
        return Health(True, "stub", 0.0)

    async def close(self) -> None: ...


class StubStream:
    slides = 0

    def __init__(self, position: int) -> None:
        self.position = position

    def ask(self, position: int, ids: Sequence[int], heard: Heard) -> None:
        self.position = position + len(ids)
        heard([SAFE_TOKEN] * len(ids))

    def give_up(self) -> None: ...

    def fork(self) -> GuardStream:
        return StubStream(self.position)

    async def close(self) -> None: ...


def stub_door() -> GuardDoor:
    door = GuardDoor(GuardSettings())
    door.connected(SafeLink(door.receive), INFO, VOCABULARY)
    return door


async def guard_of(settings: Settings, name: str) -> Guard:
    if name == "embedded":
        return await open_guard(settings)
    return StubGuard() if name == "stub" else stub_door()


@contextmanager
def profiled(file: str | None) -> Iterator[None]:
    """Write a profile of what runs inside, if a file is named."""
    if file is None:
        yield
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        profile.dump_stats(file)


async def serve(settings: Settings, guard_name: str, profile: str | None) -> None:
    guard = await guard_of(settings, guard_name)
    try:
        async with running(settings, guard) as port:
            keep_what_is_loaded()  # as `weir serve` does
            with profiled(profile):
                await until_terminated(port)
    finally:
        await guard.close()


async def share(processes: int) -> None:
    """So many of this program on one port, with the same arguments."""
    port = free_port()
    command = [sys.executable, "-m", "bench.relay.weir_server", *sys.argv[1:], "--processes", "1", "--port", str(port)]
    running = [await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE) for _ in range(processes)]
    try:
        for one in running:
            assert one.stdout is not None
            await one.stdout.readline()  # its port: it listens
        await until_terminated(port)
    finally:
        for one in running:
            if one.returncode is None:
                one.terminate()
            await one.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--guard", choices=["stub", "door", "embedded"], default="stub")
    parser.add_argument("--profile", metavar="FILE")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    wanted = parser.parse_args()
    if wanted.processes > 1:
        asyncio.run(share(wanted.processes))
        return
    values = {
        "upstream.base_url": wanted.upstream,
        "server.port": wanted.port,
        "server.reuse_port": wanted.port > 0,
        "server.max_lag_seconds": 3600,  # what is measured is how late it gets
        "server.drain_seconds": 0,
        "policy.on_flag": "annotate",  # the same work, and no stream ends early whatever the guard thinks of it
        "log.file": os.devnull,
    }
    settings = load_settings(overrides=values, environ={})
    with record_log(settings.log):
        uvloop.run(serve(settings, wanted.guard, wanted.profile))


if __name__ == "__main__":
    main()
