"""The backends of the guard behind one face, for tests that every one of them has to pass."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from proxy.guard.client import Address
from proxy.guard.door import GuardDoor
from proxy.guard.fleet import FleetGuard
from proxy.guard.loader import load_guard
from proxy.guard.places import PlacesProcess, Question
from proxy.guard.process import Config, RemoteGuard, Report
from proxy.guard.remote_code import RemoteCodeGuard, start_remote_code_guard
from proxy.guard.rows import CATEGORIES
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GuardSettings
from proxy.guard.sglang import Api
from proxy.risk import RISK_LEVELS, Risk, Role
from tests.guard.checkpoints import Reference, random_ids, random_tensors, small_config, write_checkpoint
from tests.guard.driver import distance, rows_of
from tests.guard.engines import Listed, LiveEngine
from tests.guard.ray_cluster import WITH_RAY, ray_cluster
from tests.guard.real_vllm import (
    SLOW_SECONDS,
    WITH_VLLM,
    AttachedVllm,
    Worker,
    kill_worker,
    patient,
    running_worker,
    stopped_worker,
)
from tests.guard.scripted_sglang import ScriptedGuard, ScriptedSGLang, start_scripted
from tests.guard.scripted_vllm import ScriptedGuard as ScriptedVllm
from tests.guard.scripted_vllm import model_of
from tests.guard.scripted_vllm import scripted_guard as scripted_vllm

CODE = Path(__file__).with_name("modeling_small_guard.py")
TIGHT = 1e-4
AnyGuard = GuardDoor | FleetGuard
# Two digits, and what keeps a winner ahead of the others.
COARSE = 0.02
WINDOW = 100
# The tokens above are the scripts' own, with which they misbehave.
WORDS = 390


def _same_winners(risk: Risk, row: list[float], role: Role) -> bool:
    levels, categories = row[: len(RISK_LEVELS)], row[len(RISK_LEVELS) :]
    return (
        risk.level == RISK_LEVELS[levels.index(max(levels))]
        and risk.category == CATEGORIES[role][categories.index(max(categories))]
        and abs(risk.probability - max(levels)) < COARSE
        and abs(risk.category_probability - max(categories)) < COARSE
    )


class Text:
    """A checkpoint, what it must say, and settings in which nothing hurries."""

    def __init__(self, folder: Path) -> None:
        # vLLM's kernels for a CPU have no smaller heads.
        config = small_config(head_dim=32, auto_map={"AutoModel": f"{CODE.stem}.SmallGuard"})
        tensors = random_tensors(config)
        self.folder = write_checkpoint(folder, tensors, config)
        shutil.copy(CODE, self.folder)
        self.reference = Reference(config, tensors)


@dataclass(frozen=True, slots=True)
class Backend:
    name: str
    # What a guard is started on, made once for many of them.
    place: Callable[[Text], AbstractContextManager[Any]]
    start: Callable[[Any, GuardSettings], AbstractAsyncContextManager[AnyGuard]]
    # Rows are whole, to `TIGHT`; else of a token only the winning classes are told, to `COARSE`.
    is_exact: bool = True
    # The other side forgets all streams. None: no such thing can happen to it.
    lose: Callable[[Any], Awaitable[None]] | None = None
    # The other side answers nobody while inside.
    stall: Callable[[Any], AbstractAsyncContextManager[None]] | None = None

    def __str__(self) -> str:
        return self.name

    def agrees(self, found: list[Risk], expected: list[list[float]], role: Role = Role.ASSISTANT) -> bool:
        """Whether risks are those of these rows."""
        if self.is_exact:
            return distance(rows_of(found), expected) < TIGHT
        assert len(found) == len(expected)
        return all(_same_winners(risk, row, role) for risk, row in zip(found, expected, strict=True))


def words(count: int, seed: int = 0) -> list[int]:
    return random_ids(count, seed, WORDS)


def settings_of(**changes: Any) -> GuardSettings:
    calm = {"verdict_seconds": 60.0, "open_seconds": 60.0, "health_seconds": 60.0, "hang_seconds": 600.0}
    return GuardSettings(**{"threads": 1, "window": WINDOW, **calm} | changes)


@asynccontextmanager
async def in_a_thread(text: Text, settings: GuardSettings) -> AsyncIterator[GuardDoor]:
    guard = LocalGuard(load_guard(str(text.folder)), settings)
    try:
        yield guard
    finally:
        await guard.close()


@dataclass(frozen=True, slots=True)
class Served:
    """A guard's process, as `ProcessGuard` starts one, and its socket."""

    process: "subprocess.Popen[bytes]"
    path: str


@contextmanager
def served(text: Text) -> Iterator[Served]:
    path = str(text.folder.parent / "guard.sock")
    command = [sys.executable, "-m", "proxy.guard.supervisor"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(Config(str(text.folder), settings_of(), path=path)) + b"\n")
        process.stdin.flush()
        assert msgspec.json.decode(process.stdout.readline(), type=Report) == Report()
        yield Served(process, path)
        process.stdin.close()


class AttachedGuard(RemoteGuard):
    """A guard that knows which process serves it."""

    def __init__(self, served: Served, settings: GuardSettings) -> None:
        super().__init__(Address(path=served.path), "", settings)
        self.process = served.process


@asynccontextmanager
async def in_a_process(place: Served, settings: GuardSettings) -> AsyncIterator[GuardDoor]:
    guard = AttachedGuard(place, settings)
    await guard.connect(60.0)
    try:
        yield guard
    finally:
        await guard.close()


@asynccontextmanager
async def by_remote_code(text: Text, settings: GuardSettings) -> AsyncIterator[GuardDoor]:
    with modules_in(text.folder.parent):
        guard = await start_remote_code_guard(str(text.folder), settings=settings)
    try:
        yield guard
    finally:
        await guard.close()


@contextmanager
def modules_in(folder: Path) -> Iterator[None]:
    """transformers copies a model's code before it runs it: not into the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder / "modules"))
        patch.syspath_prepend(str(folder / "modules"))
        yield


def engine_of(guard: GuardDoor) -> int:
    """The process id of the engine; 0 while there is none."""
    assert isinstance(guard, AttachedGuard)
    found = subprocess.run(
        ["pgrep", "-P", str(guard.process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return int(found[0]) if found else 0


async def kill_engine(guard: GuardDoor) -> None:
    epoch = guard.epoch
    os.kill(engine_of(guard), signal.SIGKILL)
    while guard.epoch == epoch:  # noqa: ASYNC110 (a number that the loop changes)
        await asyncio.sleep(0.002)


@asynccontextmanager
async def stopped_engine(guard: GuardDoor) -> AsyncIterator[None]:
    engine = engine_of(guard)
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine, signal.SIGCONT)


async def drop_sessions(guard: GuardDoor) -> None:
    assert isinstance(guard, RemoteCodeGuard)
    await guard.sessions.close()


@asynccontextmanager
async def busy_lane(guard: GuardDoor) -> AsyncIterator[None]:
    """The model's code is at work for somebody else."""
    assert isinstance(guard, RemoteCodeGuard)
    free = asyncio.Event()
    loop = asyncio.get_running_loop()
    waiting = loop.create_task(guard.lane.run(lambda: asyncio.run_coroutine_threadsafe(free.wait(), loop).result()))
    try:
        yield
    finally:
        free.set()
        await waiting


@asynccontextmanager
async def by_sglang(api: Api, text: Text, settings: GuardSettings) -> AsyncIterator[GuardDoor]:
    async with ScriptedSGLang(text.reference).running() as server:
        guard = await start_scripted(server, api, settings)
        try:
            yield guard
        finally:
            await guard.close()


async def restart_server(guard: GuardDoor) -> None:
    assert isinstance(guard, ScriptedGuard)
    await guard.script.restart()


@asynccontextmanager
async def silent_server(guard: GuardDoor) -> AsyncIterator[None]:
    assert isinstance(guard, ScriptedGuard)
    guard.script.is_answering.clear()
    try:
        yield
    finally:
        guard.script.is_answering.set()


@asynccontextmanager
async def by_scripted_vllm(text: Text, settings: GuardSettings) -> AsyncIterator[GuardDoor]:
    async with scripted_vllm(model_of(text.reference), settings) as guard:
        yield guard


async def restart_worker(guard: GuardDoor) -> None:
    assert isinstance(guard, ScriptedVllm)
    await guard.worker.restart()


@asynccontextmanager
async def silent_worker(guard: GuardDoor) -> AsyncIterator[None]:
    assert isinstance(guard, ScriptedVllm)
    guard.worker.llm.is_answering.clear()
    try:
        yield
    finally:
        guard.worker.llm.is_answering.set()


@contextmanager
def on_vllm(text: Text) -> Iterator[Worker]:
    config = Config(str(text.folder), settings_of(), path=str(text.folder.parent / "vllm.sock"))
    with running_worker(config) as worker:
        yield worker


@asynccontextmanager
async def by_vllm(worker: Worker, settings: GuardSettings) -> AsyncIterator[GuardDoor]:
    guard = AttachedVllm(worker, patient(settings))
    await guard.connect(SLOW_SECONDS)
    try:
        yield guard
    finally:
        await guard.close()


@asynccontextmanager
async def by_fleet(text: Text, settings: GuardSettings) -> AsyncIterator[FleetGuard]:
    loaded = load_guard(str(text.folder))
    with TemporaryDirectory() as folder:
        info = replace(loaded.info, window=WINDOW)
        engines = [LiveEngine(loaded.model, Path(folder), f"guard-{number}", info).start() for number in range(3)]
        guard = FleetGuard(Listed(engines), settings)
        try:
            await guard.start(60.0)
            yield guard
        finally:
            await guard.close()
            for engine in engines:
                await asyncio.to_thread(engine.go)


async def lose_engine(guard: FleetGuard) -> None:
    """That with the most streams goes for good."""
    assert isinstance(guard.places, Listed)
    busiest = max(guard.loads, key=lambda name: guard.loads[name])
    (engine,) = (engine for engine in guard.places.engines if engine.name == busiest)
    await asyncio.to_thread(engine.go)


@dataclass(frozen=True, slots=True)
class OnRay:
    """A cluster of several nodes on this machine, with a fleet in it."""

    cluster: Any
    engines: Any  # a `proxy.guard.cluster.Engines`, which needs ray


@contextmanager
def on_ray(text: Text) -> Iterator[OnRay]:
    with ray_cluster(nodes=2) as cluster:
        from proxy.guard.cluster import connect

        engines = connect(cluster.address)
        engines.raise_fleet("guard", 2, Config(str(text.folder), settings_of()), cpus=1, gpus=0)
        try:
            yield OnRay(cluster, engines)
        finally:
            engines.end(engines.names_of("guard"))


@asynccontextmanager
async def by_ray(place: OnRay, settings: GuardSettings) -> AsyncIterator[FleetGuard]:
    guard = FleetGuard(PlacesProcess(Question(place.cluster.address, "guard")), settings)
    try:
        await guard.start(300.0)
        yield guard
    finally:
        await guard.close()


async def kill_actor(guard: FleetGuard) -> None:
    """Of the engine with the most streams."""
    import ray

    busiest = max(guard.loads, key=lambda name: guard.loads[name])
    pids = await asyncio.to_thread(lambda: ray.get(ray.get_actor(busiest).pids.remote(), timeout=120))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def silent_fleet(guard: FleetGuard) -> AsyncIterator[None]:
    assert isinstance(guard.places, Listed)
    for engine in guard.places.engines:
        await asyncio.to_thread(engine.fall_silent)
    try:
        yield
    finally:
        for engine in guard.places.engines:
            engine.wake()


BACKENDS = (
    Backend("thread", nullcontext, in_a_thread),
    Backend("process", served, in_a_process, lose=kill_engine, stall=stopped_engine),
    Backend("remote-code", nullcontext, by_remote_code, is_exact=False, lose=drop_sessions, stall=busy_lane),
    Backend("fleet", nullcontext, by_fleet, lose=lose_engine, stall=silent_fleet),
    Backend("sglang-rid", nullcontext, partial(by_sglang, "rid"), lose=restart_server, stall=silent_server),
    Backend("vllm-script", nullcontext, by_scripted_vllm, lose=restart_worker, stall=silent_worker),
    *([Backend("vllm", on_vllm, by_vllm, lose=kill_worker, stall=stopped_worker)] if WITH_VLLM else []),
    *([Backend("ray", on_ray, by_ray, lose=kill_actor)] if WITH_RAY else []),
    Backend("sglang-sessions", nullcontext, partial(by_sglang, "sessions"), lose=restart_server, stall=silent_server),
)
