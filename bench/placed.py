"""A guard that Ray has placed beside one in a process of its own, by turns in one run; and what a call of Ray's costs.

    python -m bench.placed [--guard embedded] [--streams 1 16 64] [--rounds 5]     # `make bench-placed`

A cluster of one node is started on this machine, with token authentication, and an actor on it; its engine is reached
as from a proxy on another machine, over TCP. The other engine is the proxy's own, over a unix socket.
"""

import argparse
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from proxy.benchmark.arrivals import SHARE, make_load
from proxy.benchmark.door import Door, measure_speed, median_of
from proxy.benchmark.figures import DoorSpeed
from proxy.benchmark.guards import BenchGuard, engine_settings, load
from proxy.guard.fleet import FleetGuard
from proxy.guard.places import Place, PlacesProcess, Question
from proxy.guard.process import Config
from proxy.guard.protocol import Guard

ROOT = Path(__file__).parent.parent
FLEET = "bench"
CHUNK, SPEED_ROUNDS = 4, 32  # tokens of a question, questions of each stream
# The load of `weir bench guard`: streams of 30 to 60 tokens a second, whose lag is looked at.
LOAD_STREAMS, LOAD_SECONDS, LOAD_CONTEXT = 20, 2.0, 64
CALLS, AT_ONCE = 200, 50
START_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Call:
    """Of an actor that only tells where its engine is."""

    alone_ms: float  # one after another, median
    caller_ms: float  # of CPU time in the caller
    a_second: float  # with many under way


@dataclass
class Measured:
    """A way's figures, a list entry a round."""

    speeds: dict[int, list[DoorSpeed]] = field(default_factory=dict)  # by streams
    lags: list[tuple[float, float]] = field(default_factory=list)  # P50 and P95 under the load, ms


@contextmanager
def cluster() -> Iterator[str]:
    """A node with room for one engine; its address."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "PYTHONPATH": str(ROOT)}
    os.environ["RAY_DISABLE_IMPORT_WARNING"] = "1"
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield made.address
    finally:
        ray.shutdown()
        made.shutdown()


def place_engine(address: str, config: Config) -> Place:
    """Have Ray start an engine, and wait until it is there."""
    from proxy.guard.cluster import connect

    engines = connect(address)
    engines.raise_fleet(FLEET, 1, config, cpus=1, gpus=0)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        (found,) = engines.look(engines.names_of(FLEET) or [f"{FLEET}-0"]).values()
        if isinstance(found, Place):
            return found
        time.sleep(0.5)
    raise TimeoutError(f"the engine {found}")


def supervisor_of(name: str) -> int:
    """Its process."""
    import ray

    return int(ray.get(ray.get_actor(name).pids.remote())[1])


def time_calls(name: str) -> Call:
    """Raises what Ray raises."""
    import ray

    actor = ray.get_actor(name)
    taken = []
    ray.get(actor.place.remote())
    started_cpu = time.process_time()
    for _ in range(CALLS):
        started = time.perf_counter()
        ray.get(actor.place.remote())
        taken.append(time.perf_counter() - started)
    caller = (time.process_time() - started_cpu) / CALLS
    started = time.perf_counter()
    for _ in range(CALLS // AT_ONCE):
        ray.get([actor.place.remote() for _ in range(AT_ONCE)])
    return Call(median(taken) * 1e3, caller * 1e3, CALLS / (time.perf_counter() - started))


async def measure(
    guards: dict[str, Guard], vocabulary: int, streams: Sequence[int], rounds: int
) -> dict[str, Measured]:
    """Each round every way, in turns that begin with another each time."""
    found = {name: Measured({count: [] for count in streams}) for name in guards}
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("by turns", total=rounds * len(guards))
        for number in range(rounds):
            names = list(guards)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                for count in streams:
                    speed = await measure_speed(
                        guards[name], vocabulary, streams=count, chunk=CHUNK, rounds=SPEED_ROUNDS
                    )
                    found[name].speeds[count].append(speed)
                found[name].lags.append(await lag(guards[name], vocabulary, number))
                bar.advance(task)
    return found


async def lag(guard: Guard, vocabulary: int, seed: int) -> tuple[float, float]:
    """P50 and P95 in ms."""
    door = Door(guard, vocabulary, LOAD_CONTEXT)
    try:
        lags = await door.play(make_load(LOAD_STREAMS, LOAD_SECONDS, seed), limit=float("inf"))
    finally:
        await door.close()
    return lags.percentile(0.5) * 1e3, lags.percentile(SHARE) * 1e3


def tables(found: dict[str, Measured], call: Call) -> Iterator[Table | str]:
    own, *others = found.values()
    table = Table(title="A guard that Ray has placed, beside one in a process of its own", title_justify="left")
    for column in ("", *found):
        table.add_column(column, justify="right" if column else "left")

    def row(name: str, value: Callable[[Measured], float]) -> None:
        ratios = (f"{value(way):,.2f} ({value(way) / value(own):.2f}x)" for way in others)
        table.add_row(name, f"{value(own):,.2f}", *ratios)

    for count in own.speeds:
        row(f"{count} x {CHUNK}: a verdict, P50 ms", lambda way, count=count: median_of(way.speeds[count]).p50_ms)  # type: ignore[misc]
        row(f"{count} x {CHUNK}: tokens/s", lambda way, count=count: median_of(way.speeds[count]).tokens_a_second)  # type: ignore[misc]
    for index, share in enumerate(("P50", "P95")):
        name = f"lag of {LOAD_STREAMS} streams, {share} ms"
        row(name, lambda way, index=index: median(pair[index] for pair in way.lags))  # type: ignore[misc]
    table.caption = (
        f"streams x tokens of a question; lag: at 30 to 60 tokens/s a stream; {len(own.lags)} rounds, medians"
    )
    yield table
    yield (
        f"a call of an actor: {call.alone_ms:.2f} ms there and back, one after another, {call.caller_ms:.2f} ms of "
        f"processor in the caller; {call.a_second:,.0f} a second with {AT_ONCE} under way"
    )


def with_child(supervisor: int) -> list[int]:
    """A guard's process and its engine's."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
    return [supervisor, *map(int, children.split())]


async def compare(config: Config, address: str, vocabulary: int, wanted: argparse.Namespace) -> dict[str, Measured]:
    """Two of its own: what they differ by is what the machine did meanwhile."""
    ways: dict[str, Guard] = {}
    engines: list[int] = []
    async with AsyncExitStack() as stack:
        for name in ("own process", "another"):
            own = BenchGuard(config)
            stack.push_async_callback(own.close)
            await own.start()
            ways[name] = own
            engines.append(own.pid)
        placed = FleetGuard(PlacesProcess(Question(address, FLEET)), config.settings)
        stack.push_async_callback(placed.close)
        await placed.start(START_SECONDS)
        if wanted.realtime:
            for pid in (0, *(one for parent in (*engines, wanted.actor_supervisor) for one in with_child(parent))):
                os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
        return await measure(ways | {"Ray": placed}, vocabulary, wanted.streams, wanted.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.placed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--guard", default="embedded")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--realtime", action="store_true", help="run before everything else on the machine (root): a system that shares"
        " its cores out by session gives the ways different shares",
    )  # fmt: skip
    wanted = parser.parse_args()
    config = Config(wanted.guard, engine_settings(threads=1, window=None, kv_bytes=None))
    vocabulary = load(config).model.architecture.vocabulary
    with cluster() as address:
        place = place_engine(address, config)
        call = time_calls(place.name)
        wanted.actor_supervisor = supervisor_of(place.name)
        found = uvloop.run(compare(config, address, vocabulary, wanted))
    console = Console()
    for part in tables(found, call):
        console.print(part)


if __name__ == "__main__":
    main()
