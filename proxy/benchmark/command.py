"""`weir bench guard`: load the guard, measure it, show the figures."""

import asyncio
import contextlib
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from proxy.app import event_loop_factory
from proxy.benchmark.capacity import Pace
from proxy.benchmark.figures import Figures
from proxy.benchmark.measure import Bench, Sizes, Tell
from proxy.benchmark.report import remarks, tables
from proxy.benchmark.ways import LIMITS
from proxy.guard.loader import LoadedGuard, load_guard
from proxy.guard.protocol import Guard, GuardError
from proxy.guard.random_weights import random_guard
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GuardSettings as EngineSettings
from proxy.guard.settings import default_threads
from proxy.settings import GuardSettings

FAILED, BAD_INPUT = 1, 2
RANDOM = "random-"  # and a shape: a guard with random weights
# Nobody's answer waits for the benchmark's streams; what is too slow shall be measured, not end as an error.
PATIENCE_SECONDS = 3600.0
QUICK = Sizes(streams=(1, 64), chunks=(1, 8), contexts=(512, 2048), pace=Pace(2.0, 1))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the flags of `weir bench guard` say; None: not given."""

    only: list[str] | None = None
    streams: list[int] | None = None
    chunks: list[int] | None = None
    history: int | None = None
    histories: list[int] | None = None
    contexts: list[int] | None = None
    seconds: float | None = None
    seeds: int | None = None
    quick: bool = False
    json: bool = False

    @property
    def sizes(self) -> Sizes:
        base = QUICK if self.quick else Sizes()
        pace = Pace(self.seconds or base.pace.seconds, self.seeds or base.pace.seeds)
        given: dict[str, Any] = {
            "tables": self.only,
            "streams": self.streams,
            "chunks": self.chunks,
            "history": self.history,
            "histories": self.histories,
            "contexts": self.contexts,
        }
        return replace(base, pace=pace, **{name: value for name, value in given.items() if value is not None})


def run(wanted: Wanted, settings: GuardSettings) -> int:
    """Measure and show; returns the exit status."""
    sizes, threads = wanted.sizes, settings.threads or default_threads()
    try:
        loaded = load(settings)
        if sizes.longest > loaded.info.window:
            reason = f"{sizes.longest} tokens are needed; the guard's window holds {loaded.info.window}."
            print(reason, file=sys.stderr)
            return BAD_INPUT
        running = engine_settings(settings, threads)
        with progress() as tell, asyncio.Runner(loop_factory=event_loop_factory()) as loop:
            figures = Bench(loaded, running, sizes, lambda: open_guard(loaded, running), tell).run(loop)
    except GuardError as exc:
        print(f"There are no figures: {exc}.", file=sys.stderr)
        return FAILED
    figures.about["repeat"] = command(sizes, settings, threads, figures.about["dtype"])
    show(figures, as_json=wanted.json)
    return 0


def load(settings: GuardSettings) -> LoadedGuard:
    """Raises CheckpointError."""
    if settings.model.startswith(RANDOM):
        return random_guard(settings.model.removeprefix(RANDOM), device=settings.device, dtype=settings.dtype)
    return load_guard(settings.model, revision=settings.revision, device=settings.device, dtype=settings.dtype)


async def open_guard(loaded: LoadedGuard, settings: EngineSettings) -> Guard:
    """What stands behind the door that is measured."""
    return LocalGuard(loaded, settings)


def engine_settings(settings: GuardSettings, threads: int) -> EngineSettings:
    return EngineSettings(
        threads=threads,
        window=settings.window,
        kv_bytes=settings.kv_bytes,
        verdict_seconds=PATIENCE_SECONDS,
        open_seconds=PATIENCE_SECONDS,
        limits=LIMITS,
    )


def command(sizes: Sizes, settings: GuardSettings, threads: int, dtype: str) -> str:
    """The command line that measures the same again, whatever the settings around it are."""
    given: dict[str, Sequence[object]] = {
        "--guard": [settings.model],
        "--guard-revision": [settings.revision] if settings.revision else [],
        "--device": [settings.device],
        "--dtype": [dtype],
        "--threads": [threads],
        "--only": sizes.tables,
        "--streams": sizes.streams,
        "--chunks": sizes.chunks,
        "--history": [sizes.history],
        "--histories": sizes.histories,
        "--contexts": sizes.contexts,
        "--seconds": [f"{sizes.pace.seconds:g}"],
        "--seeds": [sizes.pace.seeds],
    }
    words = ["weir", "bench", "guard"]
    for flag, values in given.items():
        words += [flag, *map(str, values)] if values else []
    return shlex.join(words)


def show(figures: Figures, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures.as_dict(), indent=2))
        return
    console = Console()
    for table in tables(figures):
        console.print(table)
    for line in remarks(figures, figures.about["repeat"]):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress() -> Iterator[Tell]:
    """A bar a table, on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            table = what.partition(" at ")[0]
            if table not in tasks:
                tasks[table] = bar.add_task(table)
            bar.update(tasks[table], description=what, completed=done, total=total)

        yield tell
