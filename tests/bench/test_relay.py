"""The relay benchmark counts what it sent, sees what is lost, and says ratios."""

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console

from bench.relay.__main__ import Bench, commands, together
from bench.relay.load import Point, Sample, measure
from bench.relay.peers import nginx_program
from bench.relay.picture import draw, times
from bench.relay.programs import CannotRun, Place, Server, Servers, Tools, build, pause_ms
from bench.relay.report import Measured, print_report

LOAD = Point("load", streams=10, rate=50, probes=1)
SECONDS = 0.6
MOST_PASS_THROUGHS = 5.0
ANYWHERE = Place()
PYTHON = Tools(
    [sys.executable, "-m", "bench.relay.python_load", "upstream"],
    [sys.executable, "-m", "bench.relay.python_load", "client"],
    is_native=False,
)


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers() as opened:
        yield opened


def sample(tools: Tools, server: Server, point: Point = LOAD) -> Sample:
    return measure(tools.client, server.port, point, pid=server.pid, place=ANYWHERE, warm=0.5, seconds=SECONDS)


def proxy(servers: Servers, module: str, upstream: Server, folder: Path) -> Server:
    name, *more = module.split()
    command = [sys.executable, "-m", f"bench.relay.{name}", *more, "--upstream", upstream.url]
    return servers.start(command, ANYWHERE, folder / f"{name}.log")


def is_all_there(found: Sample) -> bool:
    """Nothing failed, and as many chunks as a slow machine makes of what was offered, which may come in a burst."""
    offered = LOAD.streams * LOAD.rate * SECONDS
    return found.errors == 0 and 0.1 * offered < found.chunks < 3 * offered and found.first_p50 > 0


def test_everything_passes_through_each_proxy(servers: Servers, tmp_path: Path) -> None:
    tools = build(tmp_path)
    upstream = servers.start(tools.upstream, ANYWHERE, tmp_path / "upstream.log")
    modules = [
        "passthrough",
        "weir_server",
        "weir_server --guard door",
        "weir_server --processes 2",
        "peers weir --workers 2",
        *(["peers nginx"] if nginx_program() else []),
    ]
    for module in modules:
        found = sample(tools, proxy(servers, module, upstream, tmp_path))
        assert is_all_there(found), found
        assert found.cpu_per_chunk is None or found.cpu_per_chunk > 1


def test_a_chunk_costs_no_more_than_a_few_of_a_bare_pass_through(servers: Servers, tmp_path: Path) -> None:
    """2.2 to 2.9 times where the machine is quiet, 3.5 in company: see docs/performance.md."""
    tools = build(tmp_path)
    upstream = servers.start(tools.upstream, ANYWHERE, tmp_path / "upstream.log")
    ours, bare = (proxy(servers, module, upstream, tmp_path) for module in ("weir_server", "passthrough"))
    load, ratios = Point("load", streams=40, rate=25), []
    for _ in range(3):
        costs = [sample(tools, server, load).cpu_per_chunk for server in (ours, bare)]
        if None in costs:
            pytest.skip("the system does not tell a process's CPU time")
        ratios.append(costs[0] / costs[1])  # type: ignore[operator]
    assert median(ratios) < MOST_PASS_THROUGHS, ratios


def test_all_at_once_get_the_same_load(servers: Servers, tmp_path: Path) -> None:
    tools = build(tmp_path)
    bench = Bench(tools, tmp_path, ANYWHERE, ANYWHERE, LOAD, SECONDS, Console())
    upstream = bench.upstream(servers)
    targets = {"direct": upstream, "pass-through": proxy(servers, "passthrough", upstream, tmp_path)}
    found = together(bench, LOAD, targets)
    assert list(found) == list(targets)
    assert all(is_all_there(one) for one in found.values()), found
    assert found["direct"].cpu is None


def test_the_tools_without_a_compiler_do_the_same(servers: Servers, tmp_path: Path) -> None:
    upstream = servers.start(PYTHON.upstream, ANYWHERE, tmp_path / "upstream.log")
    found = sample(PYTHON, upstream)
    assert is_all_there(found), found


def test_without_a_compiler_the_tools_are_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert not build(tmp_path).is_native


def test_an_upstream_that_refuses_is_an_error_not_a_fast_proxy(servers: Servers, tmp_path: Path) -> None:
    tools = build(tmp_path)
    gone = Server(pid=1, port=1)
    broken = proxy(servers, "passthrough", gone, tmp_path)
    found = sample(tools, broken)
    assert found.errors > 0
    assert found.chunks == 0


def test_the_report_gives_ratios_to_the_pass_through() -> None:
    def one(target: str, cpu: float, first: float) -> list[Measured]:
        found = Sample(cpu, 1.0, 1000, 100, 0, "", 50.0, 90.0, first, first * 2)
        return [Measured(target, point, 0, found) for point in ("idle", "load", "busy")]

    output = io.StringIO()
    rows = [*one("direct", 0.0, 100.0), *one("pass-through", 0.05, 600.0), *one("weir-stub", 0.15, 1600.0)]
    print_report(rows, LOAD, is_native=True, at_once=False, console=Console(file=output, width=100))
    lines = {line.split("│")[1].strip(): line for line in output.getvalue().splitlines() if line.startswith("│")}
    assert "1500 / 3000" in lines["weir-stub"]
    assert "3.00" in output.getvalue()
    print_report(rows, LOAD, is_native=True, at_once=True, console=Console(file=output, width=100))
    assert output.getvalue().count("CPU of the proxy") == 2
    assert output.getvalue().count("Added time") == 1, "times of shared seconds are nobody's own"


def test_the_picture_shows_the_median_over_the_rounds(tmp_path: Path) -> None:
    found = [
        Measured(target, "load", n, Sample(0.1, 1.0, 10, 0, 0, "", 5.0, 9.0, -1, -1, [at + n for at in range(101)]))
        for target in ("direct", "weir-stub")
        for n in (0, 10, 2)
    ]
    assert times(found, "direct", "load")[:2] == [2, 3]
    assert times(found, "none", "load") == []
    draw(found, LOAD, tmp_path / "times.png")
    assert (tmp_path / "times.png").read_bytes().startswith(b"\x89PNG")


def test_a_peer_that_is_not_there_says_so(servers: Servers, tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="needs --python"):
        proxy(servers, "peers litellm", Server(pid=1, port=1), tmp_path)


def test_another_checkout_runs_in_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "bench" / "relay").mkdir(parents=True)
    (tmp_path / "bench" / "relay" / "__init__.py").touch()
    (tmp_path / "bench" / "relay" / "weir_server.py").write_text("import os, sys\nprint(1, os.getcwd(), sys.argv)")
    command = commands("http://x", beside=tmp_path)["weir-beside"]
    assert command is not None
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.startswith(f"1 {tmp_path.resolve()} ")
    assert "weir-beside" not in commands("http://x")


@pytest.mark.parametrize(("runtime", "pause"), [("950000\n", 50.0), ("-1\n", 0.0), ("1000000\n", 0.0), ("?", 0.0)])
def test_what_linux_takes_from_realtime_programs_is_told(tmp_path: Path, runtime: str, pause: float) -> None:
    (tmp_path / "runtime").write_text(runtime)
    (tmp_path / "period").write_text("1000000\n")
    assert pause_ms(tmp_path / "runtime", tmp_path / "period") == pause
    assert pause_ms(tmp_path / "none", tmp_path / "period") == 0.0
