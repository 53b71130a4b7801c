"""`weir eval`: read the files, judge them, show the figures."""

import asyncio
import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from proxy import __version__
from proxy.evaluation.datasets import DataError, Item, read_items
from proxy.evaluation.metrics import LOOSE, STRICT
from proxy.evaluation.report import BOTH, SHOWN, robustness_table, scores_tables, timing_table
from proxy.evaluation.robustness import KINDS, SAMPLE, Robustness, measure, sample_of, work
from proxy.evaluation.run import STREAMS, Judged, judge_all
from proxy.evaluation.summary import Summary, lines_of, summarize
from proxy.guard.limits import Limits
from proxy.guard.protocol import Guard, GuardError
from proxy.guard.service import start_guard
from proxy.guard.settings import GuardSettings as EngineSettings
from proxy.settings import GuardSettings, Settings

FAILED, BAD_INPUT = 1, 2
# Nobody waits for a single verdict here, so steps are large and patience is long.
LIMITS = Limits(piece=2048, step=4096, admission_seconds=3600.0)
PATIENCE_SECONDS = 3600.0
STDOUT = "-"
NO_MATPLOTLIB = "--picture needs matplotlib: pip install 'weir-proxy[eval]'."
DEMO_GRADE = "The embedded guard is demo grade: these are its figures, not Qwen3Guard's."


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the flags of `weir eval` say."""

    data: tuple[Path, ...]
    mode: str = BOTH
    json: str | None = None  # a file, or "-"
    picture: Path | None = None
    out: Path | None = None  # a folder for all of it, and a line an item
    streams: int = STREAMS
    read_end: bool = False
    transforms: bool = False  # how detection stands disguises
    sample: int = SAMPLE

    @property
    def detection(self) -> str:
        """The mode that a detection is counted in: the proxy's default, unless strict is asked for."""
        return STRICT if self.mode == STRICT else LOOSE


@dataclass(frozen=True, slots=True)
class Evaluation:
    guard: str
    sets: tuple[tuple[str, tuple[Judged, ...]], ...]  # by file name
    seconds: float
    robustness: tuple[Robustness, ...] = ()

    @property
    def summaries(self) -> list[Summary]:
        return [summary for name, judged in self.sets for summary in summarize(name, judged)]

    @property
    def tokens(self) -> int:
        return sum(one.tokens for _, judged in self.sets for one in judged)


def run(wanted: Wanted, settings: Settings) -> int:
    """Evaluate and show; returns the exit status."""
    if wanted.picture is not None and not has_matplotlib():
        print(NO_MATPLOTLIB, file=sys.stderr)
        return BAD_INPUT
    try:
        sets = [(set_name(path), read_items(path)) for path in wanted.data]
        evaluation = asyncio.run(evaluate(sets, wanted, settings.guard))
        show(evaluation, wanted)
    except DataError as exc:
        print(exc, file=sys.stderr)
        return BAD_INPUT
    except GuardError as exc:
        print(f"There are no verdicts: {exc}.", file=sys.stderr)
        return FAILED
    except OSError as exc:
        print(f"{exc.filename or 'The output'} cannot be written: {exc.strerror or exc}.", file=sys.stderr)
        return FAILED
    return 0


def has_matplotlib() -> bool:
    try:
        return importlib.util.find_spec("matplotlib") is not None
    except ValueError:  # it was imported and taken away again
        return False


def set_name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")


async def evaluate(sets: Sequence[tuple[str, Sequence[Item]]], wanted: Wanted, settings: GuardSettings) -> Evaluation:
    """Raises GuardError."""
    guard = await open_guard(settings)
    started = time.perf_counter()
    results: list[tuple[str, tuple[Judged, ...]]] = []
    try:
        with progress() as bar:
            for name, items in sets:
                task = bar.add_task(name, total=len(items))
                judged = await judge_all(
                    items,
                    guard,
                    streams=wanted.streams,
                    read_end=wanted.read_end,
                    on_judged=lambda _, task=task: bar.advance(task),  # type: ignore[misc]
                )
                results.append((name, tuple(judged)))
            seconds = time.perf_counter() - started
            rows = await measure_transforms(results, guard, wanted, bar) if wanted.transforms else []
    finally:
        await guard.close()
    return Evaluation(f"{guard.info.model}@{guard.info.revision}", tuple(results), seconds, tuple(rows))


async def measure_transforms(
    sets: Sequence[tuple[str, Sequence[Judged]]], guard: Guard, wanted: Wanted, bar: Progress
) -> list[Robustness]:
    judged = [one for _, results in sets for one in results]
    samples = [sample_of(judged, kind, wanted.detection, wanted.sample) for kind in KINDS]
    task = bar.add_task("transforms", total=work(samples))
    rows: list[Robustness] = []
    for sample in samples:
        if sample.unsafe or sample.safe:
            advance = lambda _: bar.advance(task)  # noqa: E731
            rows += await measure(sample, guard, wanted.detection, streams=wanted.streams, on_judged=advance)
    return rows


async def open_guard(settings: GuardSettings) -> Guard:
    """Raises GuardError."""
    running = EngineSettings(
        threads=settings.threads,
        window=settings.window,
        kv_bytes=settings.kv_bytes,
        verdict_seconds=PATIENCE_SECONDS,
        open_seconds=PATIENCE_SECONDS,
        limits=LIMITS,
    )
    return await start_guard(
        settings.model,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        sha256=settings.sha256,
        settings=running,
    )


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        yield bar


def show(evaluation: Evaluation, wanted: Wanted) -> None:
    """Raises OSError."""
    report = json.dumps(as_dict(evaluation, wanted), ensure_ascii=False, indent=2) + "\n"
    if wanted.out is not None:
        wanted.out.mkdir(parents=True, exist_ok=True)
        (wanted.out / "report.json").write_text(report, encoding="utf-8")
        with (wanted.out / "items.jsonl").open("w", encoding="utf-8") as file:
            for _, judged in evaluation.sets:
                file.writelines(json.dumps(line) + "\n" for line in lines_of(judged))
    pictures = [wanted.picture] if wanted.picture is not None else []
    if wanted.out is not None and has_matplotlib():
        pictures.append(wanted.out / "picture.png")
    if pictures:
        from proxy.evaluation.picture import draw

        for path in pictures:
            draw(evaluation.sets, path, evaluation.guard)
    if wanted.json == STDOUT:
        print(report, end="")
        return
    if wanted.json is not None:
        Path(wanted.json).write_text(report, encoding="utf-8")
    print_tables(evaluation, wanted, Console())


def print_tables(evaluation: Evaluation, wanted: Wanted, console: Console) -> None:
    mode = wanted.mode
    summaries = evaluation.summaries
    console.print(f"{evaluation.guard}; percent, {' / '.join(SHOWN[mode])}\n", highlight=False)
    for scores in scores_tables(summaries, mode):
        console.print(scores)
    if (table := timing_table(summaries, mode)) is not None:
        console.print(table)
    for kind in KINDS:
        if rows := [row for row in evaluation.robustness if row.kind == kind]:
            console.print(robustness_table(rows, wanted.detection))
    speed = evaluation.tokens / max(evaluation.seconds, 1e-9)
    console.print(
        f"{evaluation.tokens:,} tokens in {evaluation.seconds:.1f} s, {speed:,.0f} a second.", highlight=False
    )
    if evaluation.guard.startswith("embedded@"):
        console.print(DEMO_GRADE, highlight=False)


def as_dict(evaluation: Evaluation, wanted: Wanted) -> dict[str, Any]:
    return {
        "weir": __version__,
        "guard": evaluation.guard,
        "rule": {
            "prompt": "the verdict at the <|im_end|> of the last user turn",
            "answer": "two consecutive Unsafe tokens; strict: else two consecutive Controversial ones",
            "positive": "labelled Unsafe",
            "reads_end_of_turn": wanted.read_end,
        },
        "sets": [summary.as_dict() for summary in evaluation.summaries],
        "robustness": [row.as_dict() for row in evaluation.robustness],
        "tokens": evaluation.tokens,
        "seconds": round(evaluation.seconds, 3),
    }
