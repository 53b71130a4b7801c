"""Weir in a process of its own, which says every second or so how much it holds.

`python -m tests.soak.server UPSTREAM-URL GUARD-SOCKET SECONDS`: its port, then a JSON line each SECONDS.
"""

import asyncio
import json
import os
import sys
import time

from proxy.app import running
from proxy.config import load_settings
from proxy.guard.garbage import keep_what_is_loaded
from proxy.guards import open_guard
from proxy.log import record_log
from proxy.serving import event_loop_factory
from proxy.settings import Settings

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def settings_of(upstream: str, guard: str) -> Settings:
    values = {
        "server.port": 0,
        "server.max_lag_seconds": 3600,
        "server.send_seconds": 2.0,
        "upstream.base_url": upstream,
        "upstream.idle_seconds": 1.5,
        "guard.address": f"unix:{guard}",
        "guard.verdict_seconds": 1.5,
        "policy.notice": "",
        "log.file": os.devnull,
    }
    return load_settings(overrides=values, environ={})


def sample(streams: int) -> dict[str, float]:
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * PAGE_BYTES
    return {
        "at": time.monotonic(),
        "MiB": resident / (1 << 20),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
        "guard streams": streams,
    }


async def serve(settings: Settings, seconds: float) -> None:
    guard = await open_guard(settings)
    try:
        async with running(settings, guard) as port:
            keep_what_is_loaded()
            print(port, flush=True)
            while True:
                await asyncio.sleep(seconds)
                print(json.dumps(sample(guard.streams)), flush=True)  # type: ignore[attr-defined]
    finally:
        await guard.close()


if __name__ == "__main__":
    chosen = settings_of(sys.argv[1], sys.argv[2])
    with record_log(chosen.log), asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        runner.run(serve(chosen, float(sys.argv[3])))
