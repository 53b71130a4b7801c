"""The guards that are measured: any that the proxy takes, and random ones; in a thread or in a process.

As a program this is the process of such a guard, as `proxy.guard.supervisor` is that of the proxy's.
"""

import sys

from proxy.benchmark.ways import LIMITS
from proxy.guard.loader import LoadedGuard, load_guard
from proxy.guard.process import Config, ProcessGuard
from proxy.guard.protocol import Guard
from proxy.guard.random_weights import random_guard
from proxy.guard.runner import Runner
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GuardSettings
from proxy.guard.supervisor import Supervisor, run

PATIENCE_SECONDS = 3600.0
RANDOM = "random-"  # and a shape: a guard with random weights


def load(config: Config) -> LoadedGuard:
    """Raises CheckpointError."""
    if config.model.startswith(RANDOM):
        return random_guard(config.model.removeprefix(RANDOM), device=config.device, dtype=config.dtype)
    return load_guard(
        config.model, revision=config.revision, device=config.device, dtype=config.dtype, sha256=config.sha256
    )


class BenchSupervisor(Supervisor):
    def load(self) -> LoadedGuard:
        Runner.use_one_thread()  # a pool of threads would not survive the fork
        return load(self._config)


class BenchGuard(ProcessGuard):
    module = "proxy.benchmark.guards"


async def open_guard(config: Config, loaded: LoadedGuard, *, in_process: bool) -> Guard:
    """A guard of these settings; one in this process uses the weights that are `loaded`. Raises GuardError."""
    if not in_process:
        return LocalGuard(loaded, config.settings)
    guard = BenchGuard(config)
    await guard.start()
    return guard


def engine_settings(threads: int | None, window: int | None, kv_bytes: int | None) -> GuardSettings:
    """Nobody's answer waits for the benchmark's streams: what is too slow shall be measured, not end as an error."""
    return GuardSettings(
        threads=threads,
        window=window,
        kv_bytes=kv_bytes,
        verdict_seconds=PATIENCE_SECONDS,
        open_seconds=PATIENCE_SECONDS,
        hang_seconds=PATIENCE_SECONDS,
        limits=LIMITS,
    )


if __name__ == "__main__":
    sys.exit(run(BenchSupervisor))
