"""Streams against GPUs, bad days, and what else so many streams need: a simulation. Minutes on two cores.

python -m bench.fleet [--efficiency 0.5] [--price 3] [--only capacity events needs] [--pictures docs]
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.fleet import events, host
from bench.fleet.capacity import AIMS, Sweep, sweep
from bench.fleet.events import Base, Day
from bench.fleet.model import H100, LIMITS, SHAPES
from bench.fleet.needs import chunk_bytes, need, question_bytes
from bench.fleet.picture import draw_days, draw_streams
from bench.fleet.placement import by_lot, fewer_of_two, fewest, fewest_and_given, sticky, sticky_with_limit
from bench.fleet.report import capacity_table, days_table, needs_table, placements_table

PARTS = ("capacity", "events", "needs")
CONTEXTS = (512, 2048, 8000)
LARGE_PIECE = 2048
# Of what an engine carries: room for bad days.
ORDINARY = 0.7
ENGINES = 40
PLACEMENTS = (fewest, fewest_and_given, by_lot, fewer_of_two, sticky, sticky_with_limit)
TURNS = 0.6  # of requests go on with a conversation
DRAWN = ("Arrivals for 5 s", "A tenth is lost, noticed after", "Twice the streams, a new engine takes")
SIZES = (10_000, 100_000, 1_000_000)

Job = Callable[[], Any]


@dataclass(frozen=True)
class Wanted:
    efficiency: float
    price: float
    only: Sequence[str]
    pictures: Path | None
    json: Path | None
    workers: int
    seed: int


def read_arguments() -> Wanted:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--efficiency", type=float, default=H100.efficiency, help="of a GPU's limits, for the events")
    parser.add_argument("--price", type=float, default=3.0, help="dollars an hour of a GPU, an assumption")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw scale-streams.png and scale-days.png")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, too")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    return Wanted(**vars(parser.parse_args()))


def capacities(wanted: Wanted) -> dict[str, Job]:
    jobs: dict[str, Job] = {}
    for shape in SHAPES:
        for share in (1.0, wanted.efficiency):
            machine = replace(H100, efficiency=share)
            for context in CONTEXTS:
                name = f"{shape.name} {share:.0%} {context}"
                jobs[name] = partial(sweep, shape, machine, context, seed=wanted.seed)
            for piece in (LIMITS.piece, LARGE_PIECE):
                name = f"{shape.name} {share:.0%} mix {piece}"
                jobs[name] = partial(sweep, shape, machine, None, piece=piece, seed=wanted.seed)
    return jobs


def days(base: Base) -> dict[str, dict[str, Job]]:
    return {
        "Placement": {
            choose.__name__: partial(events.placement, base, choose, TURNS) for choose in PLACEMENTS
        },
        DRAWN[0]: {f"{more} x": partial(events.burst, base, more, 5.0) for more in (2.0, 3.0)},
        DRAWN[1]: {f"{unnoticed} s": partial(events.loss, base, unnoticed) for unnoticed in (0.0, 3.5)},
        DRAWN[2]: {f"{delay} s": partial(events.scaling, halved(base), delay) for delay in (15.0, 60.0, 120.0)},
        "Sizes": {
            f"{streams} streams": partial(events.size, base, streams, length)
            for streams, length in ((1_000, 12.0), (10_000, 12.0), (100_000, 6.0))
        },
    }  # fmt: skip


def halved(base: Base) -> Base:
    return replace(base, engines=base.engines // 2)


def ordinary(found: Sequence[Sweep], wanted: Wanted) -> Base:
    """The smallest guard, as it is set now, at what it carries with some room."""
    machine = replace(H100, efficiency=wanted.efficiency)
    known = next(
        one
        for one in found
        if one.shape == SHAPES[0] and one.machine == machine and one.context is None and one.piece == LIMITS.piece
    )
    most = known.carried(AIMS[1])
    assert most is not None
    return Base(SHAPES[0], machine, ENGINES, round(ORDINARY * most.streams), LIMITS.piece, seed=wanted.seed)


def run(title: str, jobs: dict[str, Job], workers: int) -> dict[str, Any]:
    """All of them, some at a time, in their order."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar, ProcessPoolExecutor(workers) as pool:
        task = bar.add_task(title, total=len(jobs))
        futures = {pool.submit(job): name for name, job in jobs.items()}
        for _ in as_completed(futures):
            bar.advance(task)
    found = {name: future.result() for future, name in futures.items()}
    return {name: found[name] for name in jobs}


def main() -> None:
    wanted, console, all_numbers = read_arguments(), Console(width=160), dict[str, Any]()
    jobs = capacities(wanted)
    if "capacity" not in wanted.only:
        jobs = {name: job for name, job in jobs.items() if name.startswith(f"0.6B {wanted.efficiency:.0%} mix")}
    sweeps: list[Sweep] = list(run("capacity", jobs, wanted.workers).values())
    base = ordinary(sweeps, wanted)
    all_numbers["capacity"] = [asdict(one) for one in sweeps]
    if "capacity" in wanted.only:
        console.print(capacity_table(sweeps, wanted.price))
        if wanted.pictures:
            mixes = [one for one in sweeps if one.context is None and one.piece == LIMITS.piece]
            draw_streams(mixes, wanted.pictures / "scale-streams.png")
    if "events" in wanted.only:
        console.print(f"\n{base.engines} engines of {base.shape.name}, {base.streams} streams each, on average")
        all_numbers["events"] = tell_days(base, wanted, console)
    if "needs" in wanted.only:
        sizes, bytes_each = chunk_bytes(), question_bytes(host.measure([host.Load(64)]))
        needs = [need(streams, base.streams, base.shape, sizes, bytes_each) for streams in SIZES]
        console.print(needs_table(needs))
        console.print(
            f"bytes: a chunk {sizes[0]:.0f}, as it leaves {sizes[1]:.0f}; a question with its answer {bytes_each:.0f}"
        )
        all_numbers["needs"] = [asdict(one) for one in needs]
    if wanted.json:
        wanted.json.write_text(json.dumps(all_numbers, indent=1, default=float))


def tell_days(base: Base, wanted: Wanted, console: Console) -> dict[str, Any]:
    groups = days(base)
    flat = {f"{title} {name}": job for title, jobs in groups.items() for name, job in jobs.items()}
    found = run("events", flat, wanted.workers)
    told: dict[str, list[Day]] = {title: [found[f"{title} {name}"] for name in jobs] for title, jobs in groups.items()}
    show_days(told, wanted.pictures, console)
    return {title: [asdict(one) for one in group] for title, group in told.items()}


def show_days(told: dict[str, list[Day]], pictures: Path | None, console: Console) -> None:
    console.print(placements_table(told["Placement"]))
    for title in (*DRAWN, "Sizes"):
        console.print(days_table(title, told[title]))
    if pictures:
        draw_days([(title, told[title]) for title in DRAWN], pictures / "scale-days.png")


if __name__ == "__main__":
    main()
