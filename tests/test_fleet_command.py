"""`weir guard up | status | drain | down` over a cluster that is a script, with engines behind real sockets."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli import _parser, main
from proxy.fleet_command import RUN
from proxy.guard.places import Gone, Place
from proxy.guard.process import Config
from proxy.guard.protocol import GuardInfo
from proxy.settings import GuardSettings
from tests.guard.driver import Small
from tests.guard.engines import LiveEngine


class ScriptedCluster:
    """What `proxy.guard.cluster` does, with engines of this process."""

    def __init__(self, small: Small, folder: Path) -> None:
        self.small, self.folder = small, folder
        self.engines: dict[str, LiveEngine] = {}
        self.asked: list[Config] = []
        self.sized: list[tuple[float, float]] = []
        self.room = 2
        self.failure = ""

    def names_of(self, fleet: str) -> list[str]:
        return [name for name in self.engines if name.startswith(fleet)]

    def raise_fleet(self, fleet: str, replicas: int, config: Config, *, cpus: float, gpus: float) -> list[str]:
        self.asked.append(config)
        self.sized.append((cpus, gpus))
        for engine in self.engines.values():
            engine.is_draining = False
        new = [name for number in range(replicas) if (name := f"{fleet}-{number}") not in self.engines]
        for name in new:
            engine = LiveEngine(self.small.loaded.model, self.folder, name, GuardInfo("small", "1", 256))
            self.engines[name] = engine.start() if len(self.engines) < self.room else engine
        return new

    def look(self, names: list[str]) -> dict[str, Place | str]:
        here = {name: self.engines[name] for name in names}
        reason = Gone(self.failure) if self.failure else "is starting"
        return {name: engine.place if engine.listener else reason for name, engine in here.items()}

    def drain(self, names: list[str]) -> None:
        for name in names:
            if name not in self.engines:
                raise ValueError(f"no actor {name}")
            self.engines[name].is_draining = True

    def end(self, names: list[str]) -> None:
        for name in list(names):
            self.engines.pop(name).go()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


@pytest.fixture
def cluster(small: Small, tmp_path: Path) -> Iterator[ScriptedCluster]:
    scripted = ScriptedCluster(small, tmp_path)
    yield scripted
    scripted.end(list(scripted.engines))


def run(cluster: ScriptedCluster, *words: str, **settings: object) -> int:
    arguments: argparse.Namespace = _parser().parse_args(["guard", *words])
    return RUN[arguments.action](cluster, arguments, GuardSettings.model_validate(settings))


def test_up_raises_what_is_missing_and_waits_until_it_is_there(
    cluster: ScriptedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cluster, "up", "--replicas", "2", "--cpus", "2", device="cuda") == 0
    assert "2 engines are started, 0 were there\nguard-0: ready at unix:" in capsys.readouterr().out
    assert cluster.sized == [(2.0, 1.0)]
    assert cluster.asked[0].settings.threads == 2
    assert run(cluster, "up", "--replicas", "3", "--gpus", "0", "--wait", "0.1", device="cuda") == 1
    assert "1 engines are started, 2 were there" in (out := capsys.readouterr().out)
    assert "guard-2: is starting" in out
    assert cluster.sized[1] == (1.0, 0.0)


def test_up_does_not_wait_for_what_cannot_come(cluster: ScriptedCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.room, cluster.failure = 0, "has died: RuntimeError: no such folder"
    assert run(cluster, "up") == 1
    assert "guard-0: has died: RuntimeError: no such folder" in capsys.readouterr().out


def test_status_tells_what_each_engine_holds(
    cluster: ScriptedCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(cluster, "status") == 1
    assert "`weir guard up` starts some" in capsys.readouterr().err
    run(cluster, "up", "--replicas", "2")
    run(cluster, "drain", "guard-1")
    capsys.readouterr()
    assert run(cluster, "status") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("guard-0: ready at unix:")
    assert first.endswith(", 0 streams")
    assert second.startswith("guard-1: drained at unix:")
    monkeypatch.setattr("proxy.fleet_command.TELLING_SECONDS", 0.2)
    cluster.engines["guard-1"].fall_silent()
    run(cluster, "status")
    assert "guard-1: does not answer" in capsys.readouterr().out
    run(cluster, "up", "--replicas", "2")
    assert not cluster.engines["guard-1"].is_draining


def test_down_ends_some_or_all(cluster: ScriptedCluster, capsys: pytest.CaptureFixture[str]) -> None:
    run(cluster, "up", "--replicas", "2")
    assert run(cluster, "drain") == 2
    assert run(cluster, "down", "guard-1", "--wait", "30") == 0
    assert list(cluster.engines) == ["guard-0"]
    assert run(cluster, "down") == 0
    assert not cluster.engines
    assert "1 engines are gone" in capsys.readouterr().out


def test_without_ray_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "proxy.guard.cluster", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["guard", "up", "--address", "10.0.0.5:6379"]) == 2
    assert 'weir guard up needs ray: pip install "weir-proxy[ray]"' in capsys.readouterr().err
