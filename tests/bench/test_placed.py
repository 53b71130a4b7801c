"""The bench of a guard that Ray has placed: every way is measured in every round; with Ray, `make bench-placed`."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from bench.placed import Call, Measured, cluster, measure, place_engine, supervisor_of, tables, time_calls, with_child
from proxy.benchmark.figures import DoorSpeed
from proxy.benchmark.guards import engine_settings, load
from proxy.guard.process import Config
from proxy.guard.protocol import Guard
from proxy.guard.service import LocalGuard
from tests.guard.ray_cluster import WITH_RAY, WITHOUT

CONFIG = Config("random-tiny", engine_settings(threads=1, window=512, kv_bytes=None))


async def test_every_way_is_measured_in_every_round() -> None:
    loaded = load(CONFIG)
    ways: dict[str, Guard] = {name: LocalGuard(loaded, CONFIG.settings) for name in ("one", "other")}
    try:
        found = await measure(ways, loaded.model.architecture.vocabulary, [1, 3], rounds=2)
    finally:
        for guard in ways.values():
            await guard.close()
    for way in found.values():
        assert {count: len(speeds) for count, speeds in way.speeds.items()} == {1: 2, 3: 2}
        assert all(speed.tokens_a_second > 0 for speeds in way.speeds.values() for speed in speeds)
        assert len(way.lags) == 2
        assert all(0 < p50 <= p95 for p50, p95 in way.lags)


def test_ratios_are_of_the_second_way_to_the_first() -> None:
    def way(factor: float) -> Measured:
        speed = DoorSpeed(8, 4, 1000.0 / factor, None, 2.0 * factor, 4.0 * factor, 5.0 * factor)
        return Measured({8: [speed] * 3}, [(1.0 * factor, 3.0 * factor)] * 3)

    output = io.StringIO()
    console = Console(file=output, width=200)
    ways = {"own process": way(1.0), "another": way(0.9), "Ray": way(1.5)}
    for part in tables(ways, Call(1.3, 0.6, 800.0)):
        console.print(part)
    text = output.getvalue()
    assert [text.count(f"({ratio}x)") for ratio in ("1.50", "0.90", "0.67", "1.11")] == [3, 3, 1, 1]
    assert "1.30 ms there and back" in text


def test_an_engine_is_the_child_of_its_guards_process() -> None:
    code = "import os, sys; os.fork() or sys.stdin.read(); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdout.readline()
        assert with_child(parent.pid)[0] == parent.pid
        assert len(with_child(parent.pid)) == 2
        parent.stdin.close()


# Ray is no dependency of the tests; `make ray` installs it and runs this.
@pytest.mark.skipif(not WITH_RAY, reason=WITHOUT)
def test_an_actor_is_placed_and_called() -> None:
    with cluster() as address:
        place = place_engine(address, Config("embedded", CONFIG.settings))
        assert place.port > 0
        call = time_calls(place.name)
        assert len(with_child(supervisor_of(place.name))) == 2
    assert call.caller_ms > 0
    assert call.alone_ms > 0
    assert call.a_second > 1
