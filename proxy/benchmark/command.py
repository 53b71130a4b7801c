"""`weir bench guard`: load the guard, measure it, show the figures."""

import asyncio
import contextlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from proxy.benchmark.figures import Figures
from proxy.benchmark.guards import engine_settings, load, open_guard
from proxy.benchmark.measure import Bench, Tell
from proxy.benchmark.options import Wanted
from proxy.benchmark.parity import verdict_parity
from proxy.benchmark.report import remarks, tables
from proxy.benchmark.sizes import Sizes
from proxy.guard.process import Config
from proxy.guard.protocol import GuardError
from proxy.guards import CAN_FORK
from proxy.serving import event_loop_factory
from proxy.settings import GuardSettings

FAILED, BAD_INPUT = 1, 2


def run(wanted: Wanted, settings: GuardSettings) -> int:
    """Measure and show; returns the exit status."""
    sizes = wanted.sizes
    in_process = CAN_FORK and (settings.process if wanted.process is None else wanted.process)
    running = replace(
        engine_settings(settings.threads, settings.window, settings.kv_bytes),
        kv_dtype=settings.kv_dtype,
        cuda_graphs=settings.cuda_graphs,
    )
    config = Config(settings.model, running, settings.revision, settings.dtype, settings.device, sha256=settings.sha256)
    try:
        loaded = load(config)
        if sizes.longest > loaded.info.window:
            reason = f"{sizes.longest} tokens are needed; the guard's window holds {loaded.info.window}."
            print(reason, file=sys.stderr)
            return BAD_INPUT
        with progress() as tell, asyncio.Runner(loop_factory=event_loop_factory()) as loop:
            bench = Bench(loaded, running, sizes, lambda: open_guard(config, loaded, in_process=in_process), tell)
            figures = bench.run(loop)
        if settings.dtype not in ("auto", "float32"):
            exact = load(msgspec.structs.replace(config, dtype="float32"))
            figures.parity = verdict_parity(exact, loaded)
    except GuardError as exc:
        print(f"There are no figures: {exc}.", file=sys.stderr)
        return FAILED
    process = "--process" if in_process else "--no-process"
    # The matrices may have a format of their own (int8), which the rest of the model does not show.
    figures.about["dtype"] = figures.about["dtype"] if settings.dtype == "auto" else settings.dtype
    figures.about["engine_at_the_door"] = "process" if in_process else "thread"
    figures.about["repeat"] = f"{command(sizes, settings, figures.about)} {process}"
    show(figures, as_json=wanted.json)
    return 0


def command(sizes: Sizes, settings: GuardSettings, about: Mapping[str, Any]) -> str:
    """The command line that measures the same again, whatever the settings around it are."""
    given: dict[str, Sequence[object]] = {
        "--guard": [settings.model],
        "--guard-revision": [settings.revision] if settings.revision else [],
        "--device": [settings.device],
        "--dtype": [about["dtype"]],
        "--threads": [about["threads"]],
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
