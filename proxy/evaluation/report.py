"""An evaluation for people: tables, with the dummies and the false alarms beside every F1."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from proxy.evaluation.metrics import LOOSE, STRICT, Counts, Timing
from proxy.evaluation.robustness import Robustness, Share
from proxy.evaluation.summary import GUARD, Scores, Summary

BOTH = "both"
SHOWN: dict[str, tuple[str, ...]] = {BOTH: (STRICT, LOOSE), STRICT: (STRICT,), LOOSE: (LOOSE,)}
# The published timing counts a Controversial flag where there is no Unsafe one.
TIMED: dict[str, str] = {BOTH: STRICT, STRICT: STRICT, LOOSE: LOOSE}
NOTHING = "-"
COLUMNS = {"F1": 12, "precision": 12, "recall": 12, "false alarms": 12, "AUC": 5}  # "100.0 / 99.9"


def scores_tables(summaries: Sequence[Summary], mode: str) -> Iterator[Table]:
    """One a set, with columns of the same widths, so that they read as one even in 80 columns."""
    for number, summary in enumerate(summaries):
        table = Table(title=heading(summary), title_justify="left", title_style="bold", box=None)
        table.show_header = number == 0
        table.add_column("judge", width=15, no_wrap=True)
        for name, width in COLUMNS.items():
            table.add_column(name, width=width, justify="right", no_wrap=True)
        for scores in shown(summary):
            table.add_row(scores.judge, *_cells(scores, SHOWN[mode]), style="" if scores.judge == GUARD else "dim")
        yield table


def heading(summary: Summary) -> str:
    skipped = f", {summary.skipped} skipped" if summary.skipped else ""
    return f"{summary.data}: {summary.size} {summary.kind}, {summary.unsafe} of them unsafe{skipped}"


def shown(summary: Summary) -> tuple[Scores, ...]:
    """What the dummies score means something only where there is something to find."""
    return summary.scores if summary.unsafe else summary.scores[:1]


def timing_table(summaries: Sequence[Summary], mode: str) -> Table | None:
    """When the annotated sentences were flagged; None where nothing is annotated."""
    timed = [summary for summary in summaries if summary.timing]
    if not timed:
        return None
    table = Table(title="First flag, from the annotated sentence; percent of unsafe answers")
    for name in ("set", "answers"):
        table.add_column(name)
    for name in ("inside it", "ahead", "or <= 32 after", "or <= 128 after", "never", "stopped*"):
        table.add_column(name, justify="right")
    for summary in timed:
        table.add_row(summary.data, *_timing_cells(summary.timing[TIMED[mode]]))
    table.caption = "* the published stop rate: inside, ahead, or within 128 tokens"
    return table


def robustness_table(rows: Sequence[Robustness], mode: str) -> Table:
    """Rows of one kind."""
    unsafe, safe = rows[0].unsafe.size, rows[0].safe.size
    title = f"{unsafe} unsafe and {safe} other {rows[0].kind}, judged rightly as they were, and written otherwise"
    table = Table(title=f"{title}; percent flagged, {mode}: as they stand / with the folded view")
    table.add_column("transform")
    for name in ("unsafe", "others"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row.transform, _share_cell(row.unsafe), _share_cell(row.safe))
    return table


def _share_cell(share: Share) -> str:
    return f"{percent(share.plain / share.size)} / {percent(share.folded / share.size)}" if share.size else NOTHING


def _cells(scores: Scores, modes: Sequence[str]) -> Iterator[str]:
    counts = [scores.counts[mode] for mode in modes]
    yield _joined([one.f1 for one in counts])
    yield _joined([one.precision if _has_unsafe(one) else None for one in counts])
    yield _joined([one.recall for one in counts])
    yield _joined([one.false_alarm_rate for one in counts])
    yield percent(scores.auc)


def _has_unsafe(counts: Counts) -> bool:
    return counts.hits + counts.misses > 0


def _timing_cells(timing: Timing) -> Iterator[str]:
    yield str(timing.total)
    for value in (timing.exact_hit, timing.ahead, timing.within(32), timing.within(128), timing.missed, timing.stopped):
        yield percent(value)


def _joined(values: Sequence[float | None]) -> str:
    cells = [percent(value) for value in values]
    return cells[0] if len(set(cells)) == 1 else " / ".join(cells)


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value * 100:.1f}"
