"""CPU a chunk and time to the first chunk: direct, through a bare aiohttp proxy, and through Weir.

`python -m bench.relay` takes about a minute and a half. Times are from one run on this machine, the targets by
turns in each round, medians over the rounds: compare the ratios, not the microseconds.
"""

import argparse
import json
import shlex
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.relay.load import Point, Sample, measure
from bench.relay.picture import draw
from bench.relay.programs import (
    RUNTIME,
    CannotRun,
    Command,
    Place,
    Server,
    Servers,
    Tools,
    build,
    pause_ms,
    places,
)
from bench.relay.report import Measured, print_profile, print_report

IDLE = Point("idle", probes=1, think_ms=3)


TARGETS = (
    "direct", "nginx", "pass-through", "litellm",
    "weir-stub", "weir-2-stubs", "weir-beside", "weir-door", "weir-1-worker", "weir-2-workers", "weir-embedded",
)  # fmt: skip
WARM_SECONDS = 0.7
# How fast a slow proxy takes new streams, and then catches up with those that it had.
STREAMS_A_SECOND = 100


@dataclass(frozen=True)
class Bench:
    """What a run has: its tools, where things run, and the load that is asked for."""

    tools: Tools
    folder: Path
    proxy_place: Place
    load_place: Place
    load: Point
    seconds: float
    console: Console

    @property
    def points(self) -> list[Point]:
        busy = Point("busy", self.load.streams, self.load.rate, probes=2, think_ms=20)
        return [IDLE, self.load, busy]

    def upstream(self, servers: Servers) -> Server:
        return servers.start(self.tools.upstream, self.load_place, self.folder / "upstream.log")

    def sample(self, point: Point, target: str, server: Server, *, seconds: float | None = None) -> Sample:
        pid = None if target == "direct" else server.pid
        seconds = seconds or self.seconds
        client, port, place = self.tools.client, server.port, self.load_place
        warm = max(WARM_SECONDS, point.streams / STREAMS_A_SECOND)
        return measure(client, port, point, pid=pid, place=place, warm=warm, seconds=seconds)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=50, help="long answers at once")
    parser.add_argument("--rate", type=float, default=20.0, help="chunks a second of each")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    parser.add_argument("--only", nargs="+", choices=TARGETS, help="measure these alone")
    parser.add_argument(
        "--at-once", action="store_true", help="all targets in the same seconds: the steadiest ratios, but no times"
    )
    parser.add_argument(
        "--shared-cores", action="store_true", help="all cores for all, where a proxy has several processes"
    )
    parser.add_argument(
        "--share", type=float, default=0.0, metavar="CORES", help="each worker of weir-N-workers has no more (root)"
    )
    parser.add_argument("--realtime", action="store_true", help="run before everything else on the machine (root)")
    parser.add_argument("--litellm", metavar="PYTHON", help="an interpreter with litellm[proxy], to measure that too")
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="another checkout of Weir, measured by turns")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw how long chunks are under way")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement too")
    parser.add_argument("--profile", action="store_true", help="show where Weir spends its time, instead of measuring")
    return parser.parse_args()


def commands(
    upstream: str, litellm: str | None = None, beside: Path | None = None, share: float = 0.0
) -> dict[str, Command | None]:
    """How to start each target; None is the upstream itself.

    `litellm`: the interpreter that has it. `beside`: the folder of another checkout, with the stub guard, too. `share`:
    how much of a core each worker of `weir serve` may use, 0 for all that there is.
    """
    module = [sys.executable, "-m"]
    weir = [*module, "bench.relay.weir_server", "--upstream", upstream, "--guard"]
    peer = [*module, "bench.relay.peers", "--upstream", upstream]
    workers = [*peer, "weir", "--share", str(share), "--workers"]
    other: Command | None = ["env", "-C", beside, f"PYTHONPATH={beside}", *weir, "stub"] if beside is not None else None
    return {
        "direct": None,
        "nginx": [*peer, "nginx"],
        "pass-through": [*module, "bench.relay.passthrough", "--upstream", upstream],
        "litellm": [*peer, "litellm", *(["--python", litellm] if litellm else [])],
        "weir-stub": [*weir, "stub"],
        "weir-2-stubs": [*weir, "stub", "--processes", "2"],
        **({} if other is None else {"weir-beside": other}),
        "weir-door": [*weir, "door"],
        "weir-1-worker": [*workers, "1"],
        "weir-2-workers": [*workers, "2"],
        "weir-embedded": [*weir, "embedded"],
    }


def start_targets(bench: Bench, servers: Servers, wanted: argparse.Namespace) -> dict[str, Server]:
    """Start what can be started, and say what is left out and why."""
    upstream = bench.upstream(servers)
    found = {}
    for name, command in commands(upstream.url, wanted.litellm, wanted.beside, wanted.share).items():
        if wanted.only and name not in wanted.only:
            continue
        try:
            log = bench.folder / f"{name}.log"
            found[name] = upstream if command is None else servers.start(command, bench.proxy_place, log)
        except CannotRun as exc:
            bench.console.print(f"{name} is left out: {exc}", style="yellow", markup=False)
    return found


def measure_all(bench: Bench, targets: dict[str, Server], rounds: int, *, at_once: bool) -> list[Measured]:
    """The targets by turns, or all in the same seconds. Each is warmed up first."""
    groups = [list(targets)] if at_once else [[name] for name in targets]
    found = []
    with Progress(console=bench.console, transient=True) as progress:
        task = progress.add_task("", total=rounds * len(bench.points) * len(groups))
        for name, server in targets.items():
            progress.update(task, description=f"warming up {name}")
            bench.sample(IDLE, name, server, seconds=0.5)
        for number in range(rounds):
            for point in bench.points:
                for names in groups:
                    progress.update(task, description=f"round {number + 1}, {point.name}, {', '.join(names)}")
                    samples = together(bench, point, {name: targets[name] for name in names})
                    found += [Measured(name, point.name, number, sample) for name, sample in samples.items()]
                    progress.advance(task)
    return found


def together(bench: Bench, point: Point, targets: dict[str, Server]) -> dict[str, Sample]:
    """The same load on each of them in the same seconds."""
    with ThreadPoolExecutor(len(targets)) as pool:
        futures = {name: pool.submit(bench.sample, point, name, server) for name, server in targets.items()}
        return {name: future.result() for name, future in futures.items()}


def profile(bench: Bench) -> None:
    with Servers() as servers:
        upstream = bench.upstream(servers)
        file = bench.folder / "profile"
        command = commands(upstream.url)["weir-stub"]
        assert command is not None
        weir = servers.start([*command, "--profile", file], bench.proxy_place, bench.folder / "weir.log")
        bench.sample(bench.load, "weir-stub", weir, seconds=5.0)
    print_profile(file, bench.console)


def main() -> int:
    console = Console(highlight=False)
    try:
        run(read_arguments(), console)
    except (CannotRun, PermissionError) as exc:
        console.print(f"The benchmark cannot run: {exc}", style="red", markup=False)
        return 1
    return 0


def run(wanted: argparse.Namespace, console: Console) -> None:
    """Raises CannotRun, PermissionError."""
    load = Point("load", wanted.streams, wanted.rate)
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as name, Servers() as servers:
        folder = Path(name)
        tools = build(folder)
        where = (Place(), Place()) if wanted.shared_cores else places(is_realtime=wanted.realtime)
        if wanted.realtime and (pause := pause_ms()):
            hint = f"Linux stops realtime programs that fill a core for {pause:g} ms a second; its times show it"
            console.print(f"{hint}. Without: echo -1 > {RUNTIME}", style="yellow", markup=False)
        bench = Bench(tools, folder, *where, load, wanted.seconds, console)
        if wanted.profile:
            profile(bench)
            return
        found = measure_all(bench, start_targets(bench, servers, wanted), wanted.rounds, at_once=wanted.at_once)
    print_report(found, load, is_native=tools.is_native, at_once=wanted.at_once, console=console)
    console.print(f"Again: {shlex.join(['python', '-m', 'bench.relay', *sys.argv[1:]])}", style="dim")
    if wanted.picture:
        draw(found, load, wanted.picture)
    if wanted.json:
        wanted.json.write_text("".join(json.dumps(asdict(one)) + "\n" for one in found))


if __name__ == "__main__":
    sys.exit(main())
