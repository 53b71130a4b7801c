"""Engines on a real Ray cluster of several nodes: actors and nodes die, drain and come back. `make ray` runs it."""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.guard.answer import classify
from proxy.guard.fleet import FleetGuard, FleetStream
from proxy.guard.places import Place, PlacesProcess, Question
from proxy.guard.protocol import GuardUnavailable
from tests.guard.conformance import TIGHT, Text, kill_actor, settings_of, words
from tests.guard.driver import distance, rows_of
from tests.guard.ray_cluster import NODE, ROOT, WITH_RAY, WITHOUT, ray_cluster

pytestmark = pytest.mark.skipif(not WITH_RAY, reason=WITHOUT)

# On a machine of two cores with much else to do a node takes half a minute, an engine as long.
PATIENCE_SECONDS = 300.0
STREAMS = 20


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    return Text(tmp_path_factory.mktemp("guard") / "small")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(nodes=3) as made:
        yield made


def weir(cluster: Any, *words: str) -> str:
    """What a `weir guard` command prints."""
    return run("guard", *words, "--address", cluster.address)


def run(*words: str, **settings: str) -> str:
    """What a command of Weir's prints."""
    command = [sys.executable, "-m", "proxy", *words]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")} | settings
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@asynccontextmanager
async def fleet_of(cluster: Any, count: int) -> AsyncIterator[FleetGuard]:
    guard = FleetGuard(PlacesProcess(Question(cluster.address, "guard")), settings_of(window=None))
    try:
        await guard.start(PATIENCE_SECONDS)
        await until(lambda: len(guard.loads) == count)
        yield guard
    finally:
        await guard.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110 (numbers)
            await asyncio.sleep(0.05)


class Talkers:
    """Streams that talk while things happen, and compare every verdict with what it must be."""

    def __init__(self, guard: FleetGuard, text: Text) -> None:
        self.guard, self.text = guard, text
        self.is_over = False
        self.rounds = 0
        self.longest = 0.0  # seconds that a question took

    async def talk(self, seed: int) -> None:
        dice, ids = random.Random(seed), words(150, seed)
        expected = self.text.reference.rows(ids)[20:]
        while not self.is_over:
            stream, _ = await self.guard.open(ids[:20], owner=str(seed % 3))
            fork = stream.fork()
            rows: list[list[float]] = []
            while fork.position < len(ids):
                begun = time.monotonic()
                rows += rows_of(await classify(fork, fork.position, ids[fork.position :][: dice.choice([1, 2, 8])]))
                self.longest = max(self.longest, time.monotonic() - begun)
                await asyncio.sleep(dice.random() * 0.05)
            assert distance(rows, expected) < TIGHT
            await fork.close()
            await stream.close()
            self.rounds += 1

    async def during(self, event: Any) -> None:
        """Talk before, while and after it happens."""
        self.is_over, self.rounds, self.longest = False, 0, 0.0
        async with asyncio.TaskGroup() as group:
            for seed in range(STREAMS):
                group.create_task(self.talk(seed))
            await until(lambda: self.rounds > 0)
            await event()
            rounds = self.rounds
            await until(lambda: self.rounds > rounds + STREAMS)
            self.is_over = True


async def test_a_fleet_is_raised_and_loses_nothing_when_actors_and_nodes_die(cluster: Any, text: Text) -> None:
    found = weir(cluster, "up", "--replicas", "3", "--guard", str(text.folder))
    assert "3 engines are started, 0 were there" in found
    assert weir(cluster, "status").count(": ready at tcp://") == 3
    async with fleet_of(cluster, 3) as guard:
        from proxy.guard.cluster import connect

        connect(cluster.address)
        talkers = Talkers(guard, text)
        await talkers.during(lambda: kill_actor(guard))
        print(f"an actor died: the longest wait was {talkers.longest:.2f} s, {guard.moves} streams moved")
        assert guard.moves
        begun = time.monotonic()
        await until(lambda: len(guard.loads) == 3)
        print(f"Ray had it back {time.monotonic() - begun:.1f} s later")

        moves = guard.moves
        await talkers.during(lambda: lose_node(cluster, guard))
        print(f"a node died: the longest wait was {talkers.longest:.2f} s, {guard.moves - moves} streams moved")
        assert guard.moves > moves
        assert len(guard.loads) == 2
        # Another machine, and Ray places the third engine there.
        cluster.add_node(**NODE)  # in the main thread, since it takes signals
        await until(lambda: len(guard.loads) == 3)

        name = next(iter(guard.loads))
        await talkers.during(lambda: asyncio.to_thread(weir, cluster, "drain", name))
        await until(lambda: not takes(guard, name))
        stream = (await guard.open(words(5)))[0]
        assert isinstance(stream, FleetStream)
        assert stream.engine != name
        await stream.close()
        await talkers.during(lambda: asyncio.to_thread(weir, cluster, "down", name, "--wait", "5"))
        await until(lambda: name not in guard.loads)
        assert "1 engines are started, 2 were there" in await asyncio.to_thread(
            weir, cluster, "up", "--replicas", "3", "--guard", str(text.folder)
        )
        await until(lambda: len(guard.loads) == 3)
        await until(lambda: guard.metrics().streams == 0)
        assert guard.streams == 0
    assert "3 engines are gone" in weir(cluster, "down")


def takes(guard: FleetGuard, name: str) -> bool:
    """Whether new streams go there."""
    return any(member.place.name == name and not member.place.is_draining for member in guard.members)


async def lose_node(cluster: Any, guard: FleetGuard) -> None:
    """A node with all its processes, that of an engine with streams."""
    import ray

    busiest = max(guard.loads, key=lambda name: guard.loads[name])
    where = await asyncio.to_thread(lambda: ray.get(ray.get_actor(busiest).node.remote(), timeout=120))
    node = next(one for one in cluster.worker_nodes if one.node_id == where)
    await asyncio.to_thread(cluster.remove_node, node, allow_graceful=False)


async def test_a_model_that_cannot_be_loaded_is_told_by_up(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no such folder"):
        await asyncio.to_thread(weir, cluster, "up", "--guard", str(tmp_path / "none"))
    weir(cluster, "down")


def test_a_command_judges_by_the_fleet_that_its_settings_name(cluster: Any, tmp_path: Path) -> None:
    weir(cluster, "up")
    (tmp_path / "talk.json").write_text('{"messages": [{"role": "user", "content": "Hello"}]}')
    fleet = {"WEIR_GUARD__BACKEND": "ray", "WEIR_GUARD__RAY_ADDRESS": cluster.address}
    assert '"Safe"' in run("moderate", str(tmp_path / "talk.json"), "--json", **fleet)
    weir(cluster, "down")


async def test_nobody_gets_in_without_the_clusters_token(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    guard = FleetGuard(PlacesProcess(Question(cluster.address, "guard")), settings_of())
    with pytest.raises(GuardUnavailable):
        await guard.start(PATIENCE_SECONDS)
    monkeypatch.delenv("RAY_AUTH_MODE")
    guard = FleetGuard(PlacesProcess(Question(cluster.address, "guard")), settings_of())
    with pytest.raises(GuardUnavailable, match="token authentication"):
        await guard.start(PATIENCE_SECONDS)


async def test_an_engine_knows_its_token_and_a_stranger_does_not(cluster: Any, text: Text) -> None:
    from proxy.guard.cluster import connect
    from proxy.guard.process import attach_guard

    weir(cluster, "up", "--guard", str(text.folder))
    engines = connect(cluster.address)
    (place,) = engines.look(engines.names_of("guard"), 60).values()
    assert isinstance(place, Place)
    await (await attach_guard(place.address, place.token, settings_of())).close()
    with pytest.raises(GuardUnavailable, match="the token is not the engine's"):
        await attach_guard(place.address, "guessed", settings_of())
    weir(cluster, "down")
