"""The answers as tables."""

from collections.abc import Callable, Sequence

from rich.table import Table

from bench.fleet.capacity import AIMS, Point, Sweep, dollars
from bench.fleet.events import Day
from bench.fleet.model import SHAPES
from bench.fleet.needs import Need

NOTHING = "-"


def capacity_table(sweeps: Sequence[Sweep], price: float) -> Table:
    names = [f"P95 <= {aim * 1e3:.0f} ms" for aim in AIMS]
    title = f"Streams of one engine, and dollars a million tokens of answers at {price:g} an hour"
    table = table_of(
        title, "guard", "limits reached", "context", "piece", *names, "at the last: busy", "host", "memory"
    )
    table.caption = "busy, host, memory: shares at the last of them"
    for sweep in sweeps:
        found = [sweep.carried(aim) for aim in AIMS]
        cells = [NOTHING if one is None else f"{one.streams} (${dollars(one, price):.3f})" for one in found]
        context = "mix" if sweep.context is None else f"{sweep.context}"
        shares = _shares(found[-1])
        table.add_row(sweep.shape.name, f"{sweep.machine.efficiency:.0%}", context, f"{sweep.piece}", *cells, *shares)
    return table


def _shares(point: Point | None) -> Sequence[str]:
    return [NOTHING] * 3 if point is None else [f"{one:.0%}" for one in (point.busy, point.hosted, point.fullest)]


def days_table(title: str, days: Sequence[Day]) -> Table:
    columns = ("before, P50 / P95 / P99 ms", "ten seconds from then", "worst second's P95", "as before after")
    more = ("prompts P99", "refused", "moved", "replayed tokens", "most of average")
    table = table_of(title, "", *columns, *more)
    for day in days:
        again = "not in the run" if day.again is None else f"{day.again:g} s"
        worst, prompts = f"{day.worst * 1e3:.0f}", f"{day.prompts * 1e3:.0f}"
        moved = (f"{day.refused:.2%}", f"{day.moved:,}", f"{day.replayed:,}", f"{day.uneven:.2f}x")
        table.add_row(day.name, _three(day.calm), _three(day.after), worst, again, prompts, *moved)
    return table


def placements_table(days: Sequence[Day]) -> Table:
    table = table_of("Placement", "rule", "P50 / P95 / P99 ms", "prompts P99", "refused", "read", "most of average")
    for day in days:
        read = f"{day.read / days[-1].read:.2f}x"
        prompts = f"{day.prompts * 1e3:.0f}"
        table.add_row(day.name, _three(day.after), prompts, f"{day.refused:.2%}", read, f"{day.uneven:.2f}x")
    table.caption = "read: tokens of prompts, beside the last row's"
    return table


def needs_table(needs: Sequence[Need]) -> Table:
    table = table_of("What so many streams need", "", *(f"{need.streams:,} streams" for need in needs))
    rows: dict[str, Callable[[Need], str]] = {
        f"engines of {SHAPES[0].name}": lambda need: f"{need.engines:,}",
        "cores of proxies": lambda need: f"{need.cores:,.0f}",
        "keys and values": lambda need: f"{need.memory / 1e12:.1f} TB",
        "network of upstreams and clients": lambda need: f"{need.api / 1e9:.1f} Gbit/s",
        "network between proxies and engines": lambda need: f"{need.guard / 1e9:.2f} Gbit/s",
        "connections of upstreams and clients": lambda need: f"{need.sockets:,}",
        "connections between proxies and engines": lambda need: f"{need.links:,}",
        "cores busy with looking for engines": lambda need: f"{need.looking:,.1f}",
    }
    for name, cell in rows.items():
        table.add_row(name, *map(cell, needs))
    return table


def table_of(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def _three(lags: tuple[float, float, float]) -> str:
    return " / ".join(f"{lag * 1e3:.0f}" for lag in lags)
