"""Figures for people: tables, with ratios to the other ways."""

from collections.abc import Iterator

from rich.table import Table

from proxy.benchmark.figures import Figures, TokenTime
from proxy.benchmark.parity import told

OURS = "weir"
NOTHING = "-"
MARKS = {"lag": "", "memory": "*", "search": "+"}


def tables(figures: Figures) -> Iterator[Table]:
    """Those that were measured."""
    if figures.tokens:
        yield tokens_table(figures.tokens)
    if figures.steps:
        yield steps_table(figures)
    if figures.door:
        yield door_table(figures)
    if figures.capacity:
        yield capacity_table(figures)


def tokens_table(tokens: list[TokenTime]) -> Table:
    others = [name for name in tokens[0].ms if name != OURS]
    table = _table("One more token of one stream, ms", ("history", OURS, *others))
    for row in tokens:
        for label, ms in ((f"{row.history}", row.ms), (f"{row.history}, CPU time", row.core_ms)):
            cells = (f"{ms[name]:.2f} ({_ratio(ms[name] / ms[OURS])})" for name in others)
            table.add_row(label, f"{ms[OURS]:.2f}", *cells)
    if len(tokens) > 1:
        first, last = tokens[0].core_ms, tokens[-1].core_ms
        table.add_row("growth of it", *(_ratio(last[name] / first[name]) for name in (OURS, *others)))
    table.caption = "in brackets: how many times as long as weir"
    return table


def steps_table(figures: Figures) -> Table:
    title = f"Steps of the engine at history {figures.steps[0].history}"
    table = _table(title, ("streams x tokens", "p50 ms", "p95 ms", "p99 ms", "tokens/s", "a core-s"))
    for row in figures.steps:
        times = (f"{value:.2f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms))
        rates = (f"{row.tokens_a_second:,.0f}", f"{row.tokens_a_core_second:,.0f}")
        table.add_row(f"{row.streams} x {row.chunk}", *times, *rates)
    return table


def door_table(figures: Figures) -> Table:
    """The other ways judge one stream at a time, so their speed is that of their single token."""
    alone = figures.tokens[0].ms if figures.tokens else {}
    others = [name for name in alone if name != OURS]
    table = _table("At the service's door", ("streams x tokens", "p50 ms", "p95 ms", "tokens/s", "a core-s", *others))
    for row in figures.door:
        times = (f"{value:.2f}" for value in (row.p50_ms, row.p95_ms))
        of_cpu = NOTHING if row.tokens_a_core_second is None else f"{row.tokens_a_core_second:,.0f}"
        ratios = (_ratio(row.tokens_a_second * alone[name] / 1e3) for name in others)
        table.add_row(f"{row.streams} x {row.chunk}", *times, f"{row.tokens_a_second:,.0f}", of_cpu, *ratios)
    if others:
        table.caption = "last columns: how many times their tokens/s, one stream at a time, token by token"
    return table


def capacity_table(figures: Figures) -> Table:
    ways = list(dict.fromkeys(row.way for row in figures.capacity))
    table = _table("Capacity: most streams at 30 to 60 tokens/s with P95 lag <= 20 ms", ("context", *ways))
    found = {(row.context, row.way): row for row in figures.capacity}
    for context in dict.fromkeys(row.context for row in figures.capacity):
        cells = []
        for way in ways:
            row = found.get((context, way))
            cells.append(NOTHING if row is None else f"{row.streams}{MARKS[row.limit]} ({row.p95_ms:.1f} ms)")
        table.add_row(str(context), *cells)
    table.caption = "in brackets: the P95 lag at that many; * memory full, + no more tried; a lost load is tried twice"
    return table


def remarks(figures: Figures, command: str) -> Iterator[str]:
    """What was measured on what, and how to repeat it."""
    about = figures.about
    yield f"guard {about['guard']}: {about['shape']}, {about['dtype']}, on {about['device']}"
    versions = ", ".join(f"{name} {about[name]}" for name in ("weir", "python", "torch", "transformers") if about[name])
    yield f"{versions}; {about['cores']} cores, {about['threads']} threads, load before {about['load_before']}"
    if (about["load_before"] or 0.0) > about["cores"] / 4:
        yield "others were at work on this machine: the times and the capacity are those of what they left of it"
    yield f"at the door: the engine in a {about['engine_at_the_door']}"
    if figures.parity is not None:
        yield told(figures.parity, about["dtype"])
    yield from figures.skipped
    yield f"repeat: {command}"


def _ratio(value: float) -> str:
    return f"{value:.0f}x" if value >= 10 else f"{value:.1f}x"


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table
