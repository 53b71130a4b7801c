"""What is asked of the simulated fleet, and how its answers are shown, on a small scale."""

import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench.fleet import events
from bench.fleet.__main__ import capacities, days, ordinary, run, show_days
from bench.fleet.__main__ import read_arguments as read
from bench.fleet.capacity import AIMS, Point, Sweep, counts_up_to, dollars, sweep
from bench.fleet.events import Base, Day, _again
from bench.fleet.host import Cost, Load
from bench.fleet.model import H100, SHAPES
from bench.fleet.needs import chunk_bytes, mean_context, need, question_bytes
from bench.fleet.picture import draw_streams
from bench.fleet.placement import by_lot, sticky
from bench.fleet.report import capacity_table, days_table, needs_table, placements_table
from bench.fleet.traffic import MIX, Mix

SHORT = Mix(prompt=300.0, prompts=(16, 1500), answer=40.0, answers=(8, 120))
SLOW = replace(H100, launch=20e-3)
BASE = Base(SHAPES[0], SLOW, engines=10, streams=10, piece=512, mix=SHORT)


def point(streams: int, p95: float, *, refused: int = 0, prompts: float = 0.1) -> Point:
    return Point(streams, (p95 / 2, p95, 2 * p95), prompts, refused, 0, 40.0 * streams, 0.9, 0.1, 0.5)


def shown(*tables: object) -> str:
    output = io.StringIO()
    console = Console(file=output, width=250)
    for table in tables:
        console.print(table)
    return output.getvalue()


def test_a_sweep_finds_the_most_that_keep_the_aim() -> None:
    points = [point(10, 0.01), point(20, 0.019), point(30, 0.05), point(40, 0.019), point(50, 0.05, refused=1)]
    found = Sweep(SHAPES[0], H100, None, 512, points)
    first, second = (found.carried(aim) for aim in AIMS)
    assert first == points[1]
    assert second == points[3]
    assert Sweep(SHAPES[0], H100, None, 512, [point(1, 1.0)]).carried(AIMS[1]) is None
    assert Sweep(SHAPES[0], H100, None, 512, [point(1, 0.01, prompts=9.0)]).carried(AIMS[1]) is None
    # 800 tokens a second are 2.88 million an hour.
    assert dollars(points[1], price=2.88) == pytest.approx(1.0)


def test_more_streams_are_later_and_half_a_gpu_carries_fewer() -> None:
    machines = (replace(H100, efficiency=share, launch=2e-3) for share in (1.0, 0.5))
    whole, half = (sweep(SHAPES[2], machine, 512, seconds=4.0, points=6) for machine in machines)
    assert [one.streams for one in whole.points] == counts_up_to(whole.points[-1].streams, 6)
    lags = [one.lags[1] for one in whole.points]
    assert lags[0] < lags[-1]
    most, fewer = whole.carried(0.1), half.carried(0.1)
    assert most is not None
    assert fewer is not None
    assert most.streams > fewer.streams > 0
    assert most.tokens == pytest.approx(45 * most.streams, rel=0.15)


def test_a_sweep_of_the_mix_reads_prompts() -> None:
    found = sweep(SHAPES[0], SLOW, None, mix=SHORT, seconds=4.0, points=3)
    assert all(one.prompts > 0 for one in found.points)


def test_lags_are_as_before_when_three_seconds_in_a_row_are() -> None:
    calm = [0.01] * 10
    assert _again([*calm, 0.011, 0.01, 0.01], 0.01) == 0.0
    assert _again([*calm, 0.5, 0.2, 0.01, 0.5, 0.01, 0.01, 0.01, 0.01], 0.01) == 4.0
    assert _again([*calm, 0.5, 0.5], 0.01) is None


@pytest.fixture(scope="module")
def told() -> dict[str, Day]:
    return {
        "burst": events.day("3 x", BASE.fleet(), BASE, more=3.0, until=13.0, length=15.0),
        "loss": events.loss(BASE, 0.5, 16.0),
        "scaling": events.scaling(replace(BASE, engines=4), 5.0, ramp=10.0, length=25.0),
        "size": events.size(BASE, 200, 4.0),
        "lot": events.placement(BASE, by_lot, 1.0, 14.0),
        "sticky": events.placement(BASE, sticky, 1.0, 14.0),
    }


def test_days_tell_what_happened(told: dict[str, Day]) -> None:
    assert told["loss"].moved > 0
    assert told["loss"].replayed > 100 * told["loss"].moved
    assert told["loss"].alive[-1] == 9
    assert told["loss"].worst > 1.5 * told["loss"].calm[1]
    assert told["scaling"].alive[-1] > told["scaling"].alive[0] == 4
    assert max(told["burst"].streams[10:]) > 1.3 * max(told["burst"].streams[5:10])
    assert told["size"].alive == [20] * 5
    assert told["sticky"].read < 0.5 * told["lot"].read
    assert all(day.refused == 0 for day in told.values())


def test_all_of_it_is_shown(told: dict[str, Day], tmp_path: Path) -> None:
    found = Sweep(SHAPES[0], H100, None, 512, [point(10, 0.01), point(20, 0.05)])
    needs = [need(streams, 100, SHAPES[0], (250.0, 500.0), 80.0) for streams in (1000, 10_000)]
    text = shown(
        capacity_table([found], 3.0),
        days_table("Losses", [told["loss"]]),
        placements_table([told["lot"], told["sticky"]]),
        needs_table(needs),
    )
    assert "10 ($2.083)" in text
    assert f"{told['loss'].moved:,}" in text
    assert "by_lot" in text
    assert "56" in next(line for line in text.splitlines() if "cores of proxies" in line)
    draw_streams([found], tmp_path / "streams.png")
    groups = {title: [told["loss"]] for title in days(BASE)}
    output = io.StringIO()
    show_days(groups, tmp_path, Console(file=output, width=250))
    assert all(title in output.getvalue() for title in groups)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("streams.png", "scale-days.png"))


def test_needs_grow_with_the_streams_and_what_looks_for_engines_with_their_square() -> None:
    some, many = (need(streams, 100, SHAPES[0], (250.0, 500.0), 80.0) for streams in (10_000, 100_000))
    assert many.engines == 10 * some.engines == 1000
    assert many.cores == pytest.approx(562.5)
    assert many.api == pytest.approx(100_000 * 45 * 750 * 8)
    assert many.looking / some.looking == pytest.approx(100, rel=0.02)
    assert many.links == 562 * 1000


def test_what_needs_are_made_of_is_measured() -> None:
    came, left = chunk_bytes(50)
    assert 200 < came < 300
    assert left > came
    assert question_bytes([Cost(Load(1), 1.0, 9, 9), Cost(Load(10), 1.0, 300, 500)]) == 80
    dice = np.random.default_rng(1)
    assert mean_context(MIX) > MIX.prompt_tokens(dice, 10_000).mean()


def test_everything_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench.fleet", "--efficiency", "0.5", "--seed", "3"])
    wanted = read()
    jobs = capacities(wanted)
    assert len(jobs) == len(SHAPES) * 2 * 5
    # As it comes back from another process.
    found = pickle.loads(pickle.dumps(Sweep(SHAPES[0], H100, None, 512, [point(100, 0.05)])))
    base = ordinary([replace(found, piece=2048), found], wanted)
    assert base.streams == 70
    assert sum(map(len, days(base).values())) == 16


def test_jobs_come_back_in_their_order() -> None:
    assert list(run("test", {"b": dict, "a": list}, 2).items()) == [("b", {}), ("a", [])]
