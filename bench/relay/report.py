"""Medians over the rounds, as tables and ratios."""

import os
import platform
import pstats
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.relay.load import Point, Sample
from proxy.compiled import is_compiled

PROFILE_LINES = 30

Get = Callable[[Sample], float | None]


@dataclass(frozen=True)
class Measured:
    target: str
    point: str
    round: int
    sample: Sample


def medians(found: list[Measured], point: str, get: Get) -> dict[str, float]:
    """target -> median over the rounds; targets of which nothing is known are left out."""
    values: dict[str, list[float]] = {}
    for one in found:
        if one.point == point and (value := get(one.sample)) is not None and value >= 0:
            values.setdefault(one.target, []).append(value)
    return {target: median(many) for target, many in values.items()}


def print_report(found: list[Measured], load: Point, *, is_native: bool, at_once: bool, console: Console) -> None:
    """`at_once`: the targets had the machine together, so that their times are not their own."""
    console.print(cost_table(found, load))
    if not at_once:
        console.print(time_table(found, load))
    for line in remarks(found, is_native=is_native):
        console.print(line, style="yellow", markup=False)
    about = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    console.print(f"{about}, load {os.getloadavg()[0]:.1f}; medians of {max(m.round for m in found) + 1} rounds.")


def cost_table(found: list[Measured], load: Point) -> Table:
    """CPU of the proxy process."""
    table = Table(
        title=f"CPU of the proxy, {load.streams} streams of {load.rate:g} chunks a second; ratio: to the pass-through",
        title_style="bold",
    )
    for name in ("", "µs a chunk", "ratio", "chunks/s", "µs a request", "ratio "):
        table.add_column(name, justify="right" if name else "left", no_wrap=not name)
    chunk = medians(found, load.name, lambda sample: sample.cpu_per_chunk)
    request = medians(found, "idle", lambda sample: sample.cpu_per_request)
    rate = medians(found, load.name, lambda sample: sample.chunks / sample.seconds)
    for target in targets(found):
        cells = [number(chunk.get(target)), ratio(chunk, target), number(rate.get(target))]
        table.add_row(target, *cells, number(request.get(target)), ratio(request, target))
    return table


def time_table(found: list[Measured], load: Point) -> Table:
    """Time that a target adds to what the direct way takes."""
    table = Table(title="Added time in µs, p50 / p99 (direct: its own)", title_style="bold")
    for name in ("", "first chunk, idle", "first chunk, under that load", "a chunk, under that load"):
        table.add_column(name, justify="right" if name else "left", no_wrap=not name)
    columns: list[tuple[str, Get, Get]] = [
        ("idle", lambda sample: sample.first_p50, lambda sample: sample.first_p99),
        ("busy", lambda sample: sample.first_p50, lambda sample: sample.first_p99),
        (load.name, lambda sample: sample.chunk_p50, lambda sample: sample.chunk_p99),
    ]
    for target in targets(found):
        cells = [" / ".join(added(medians(found, point, get), target) for get in gets) for point, *gets in columns]
        table.add_row(target, *cells)
    return table


def targets(found: list[Measured]) -> list[str]:
    return list(dict.fromkeys(one.target for one in found))


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def ratio(values: dict[str, float], target: str, base: str = "pass-through") -> str:
    return f"{values[target] / values[base]:.2f}" if values.get(base) and target in values else "-"


def added(values: dict[str, float], target: str) -> str:
    value = values.get(target)
    return number(value if value is None or target == "direct" else value - values.get("direct", 0.0))


def remarks(found: list[Measured], *, is_native: bool) -> list[str]:
    """What a reader must know of the numbers."""
    lines = []
    lines.append(f"Weir's stages are {'compiled' if is_compiled() else 'plain Python'}.")
    if not is_native:
        lines.append("No C compiler (or not Linux): load and upstream run in Python, and their own delays are in it.")
    for target in targets(found):
        samples = [one.sample for one in found if one.target == target]
        if errors := sum(sample.errors for sample in samples):
            first = next(sample.first_error for sample in samples if sample.first_error)
            lines.append(f"{target}: {errors} errors, the first: {first}")
    offered = medians(found, "load", lambda sample: sample.chunks / sample.seconds)
    for target, rate in offered.items():
        if rate < 0.9 * offered.get("direct", rate):
            lines.append(f"{target} does not keep up: its times are those of a queue.")
    return lines


def print_profile(file: Path, console: Console) -> None:
    """Functions by their own time, as a share of all that was not waiting."""
    stats = pstats.Stats(str(file)).get_stats_profile()
    rows = [(one.tottime, one.ncalls, name, one) for name, one in stats.func_profiles.items()]
    busy = sum(own for own, *_ in rows)
    table = Table(title="Own time of functions in Weir with a stub guard, under that load", title_style="bold")
    for name in ("function", "calls", "own time"):
        table.add_column(name, justify="left" if name == "function" else "right")
    for own, calls, name, one in sorted(rows, key=lambda row: -row[0])[:PROFILE_LINES]:
        where = f"{'/'.join(Path(one.file_name).parts[-2:])}:{one.line_number}" if one.line_number else ""
        table.add_row(f"{name} {where}", calls, f"{own / busy:.1%}")
    console.print(table)
