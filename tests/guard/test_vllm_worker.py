"""The process around vLLM, which is a script here; `make vllm` runs the real one, in test_vllm_engine.py."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from proxy.guard.answer import classify
from proxy.guard.process import Child, Config, Report, VllmGuard, serve_child, start_process_guard
from proxy.guard.protocol import GuardFault, GuardTimeout, GuardUnavailable
from proxy.guard.rows import read_rows, rows_of_logits
from proxy.guard.vllm_worker import VLLM_DEAD, serve
from proxy.risk import Role
from tests.crews import until_dead
from tests.guard.checkpoints import small_checkpoint
from tests.guard.conformance import settings_of, words
from tests.guard.driver import distance, rows_of
from tests.guard.scripted_vllm import ScriptedWorker
from tests.guard.vllm_script import DEADLY, ENGINE_CORE, ScriptedVllmGuard, model
from tests.sockets import PATIENCE_SECONDS


def engine_core(folder: Path) -> int:
    """Of the newest worker, which has not ended it."""
    return int((folder / ENGINE_CORE).read_text())


def expected(ids: list[int]) -> list[list[float]]:
    """The rows of an answer's tokens."""
    return rows_of(read_rows(rows_of_logits(model(ids)[:, :11].tolist(), Role.ASSISTANT), len(ids), Role.ASSISTANT))


@asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[VllmGuard]:
    guard = await start_process_guard(Config(str(folder), settings_of(**settings)), ScriptedVllmGuard)
    assert isinstance(guard, VllmGuard)
    try:
        yield guard
    finally:
        await guard.close()


async def test_a_worker_ends_with_its_guard_and_with_all_that_it_has_started(tmp_path: Path) -> None:
    ids = words(20)
    async with running(tmp_path) as guard:
        stream, _ = await guard.open(ids[:10])
        found = await classify(stream, 10, ids[10:])
        assert distance(rows_of(found), expected(ids)[10:]) < 1e-4
        pids = [guard.pid, engine_core(tmp_path)]
    await until_dead(pids)


async def test_a_worker_that_was_killed_is_started_again_after_what_it_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ids = words(20)
    async with running(tmp_path) as guard:
        stream, _ = await guard.open(ids[:10])
        left, pid = engine_core(tmp_path), guard.pid
        os.kill(pid, signal.SIGKILL)
        found = await classify(stream, 10, ids[10:])
        assert distance(rows_of(found), expected(ids)[10:]) < 1e-4
        assert guard.pid != pid
        assert engine_core(tmp_path) != left
        await until_dead([left])
    assert "is started again" in capfd.readouterr().err


async def test_a_text_that_kills_vllm_fails_within_its_deadline_and_others_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path, verdict_seconds=3.0) as guard:
        bad, good = (await guard.open([1, 2]))[0], (await guard.open([1, 2]))[0]
        with pytest.raises((GuardTimeout, GuardFault)):
            await classify(bad, 2, [DEADLY])
        await bad.close()
        guard.settings = settings_of()
        found = await classify(good, 2, [3])
        assert distance(rows_of(found), expected([1, 2, 3])[2:]) < 1e-4
    assert "vLLM died" in capfd.readouterr().err


async def test_why_it_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(GuardUnavailable, match="no such folder"):
        await start_process_guard(Config(str(tmp_path / "none"), settings_of()), ScriptedVllmGuard)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("embedded", "weir export-embedded DIR"),
        ("never/a folder", "not a hub id"),
        pytest.param(
            None,
            r'needs vllm, which is not installed: pip install "weir-proxy\[vllm\]"',
            marks=pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed"),
        ),
    ],
)
async def test_what_vllm_cannot_have_is_said(tmp_path: Path, named: str | None, said: str) -> None:
    folder = small_checkpoint(tmp_path / "small")
    with pytest.raises(GuardUnavailable, match=said):
        await start_process_guard(Config(named or str(folder), settings_of()), VllmGuard)


async def test_a_guard_is_served_until_a_signal_comes(tmp_path: Path) -> None:
    reports: list[Report] = []
    config = Config(str(tmp_path), settings_of(), host="127.0.0.1", token="secret")
    child = Child(ScriptedVllmGuard.module, config, has_group=True)
    serving = asyncio.ensure_future(serve_child(child, reports.append))
    async with asyncio.timeout(3 * PATIENCE_SECONDS):
        while not reports:  # noqa: ASYNC110 (a list)
            await asyncio.sleep(0.01)
    assert reports[0].port > 0
    pids = [child.pid, engine_core(tmp_path)]
    os.kill(os.getpid(), signal.SIGTERM)
    assert await serving == 0
    await until_dead(pids)
    missing = Child(ScriptedVllmGuard.module, Config(str(tmp_path / "none"), settings_of(), path=str(tmp_path / "s")))
    assert await serve_child(missing, reports.append) == 1
    assert "no such folder" in reports[1].error


class Engine:
    """What `serve` has instead of a loaded vLLM."""

    def __init__(self, path: Path) -> None:
        self.worker = ScriptedWorker(model, path, 100)
        self.reader, self.vocabulary = self.worker.reader, 400
        self.path = path
        self.reports: list[Report] = []
        self.stopped = asyncio.Event()

    @property
    def info(self) -> object:
        return self.worker.info

    async def serve(self, **settings: Any) -> int:
        config = Config("small", settings_of(**settings), path=str(self.path))
        return await serve(config, self, self.reports.append, self.stopped)


async def test_it_serves_until_it_is_stopped(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "s")
    serving = asyncio.ensure_future(engine.serve())
    async with engine.worker.guard(settings_of()) as guard:
        assert engine.reports == [Report()]
        stream, _ = await guard.open([1, 2], read=[1])
        assert not serving.done()
        await stream.close()
        engine.stopped.set()
        assert await serving == 0
    assert not engine.path.exists()


@pytest.mark.parametrize(("is_dead", "said"), [(True, "vLLM died"), (False, "vLLM hangs")])
async def test_it_ends_when_vllm_has_died_or_answers_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], is_dead: bool, said: str
) -> None:
    engine = Engine(tmp_path / "s")
    serving = asyncio.ensure_future(engine.serve(hang_seconds=0.5))
    async with engine.worker.guard(settings_of()) as guard:
        if is_dead:
            engine.worker.llm.errored = True
            engine.worker.llm.faults.append(lambda answer: RuntimeError("EngineDeadError"))
        else:
            engine.worker.llm.is_answering.clear()
        asking = asyncio.ensure_future(guard.open([1, 2]))
        assert await serving == VLLM_DEAD
        await guard.close()
        with pytest.raises(GuardUnavailable):
            await asking
    assert said in capfd.readouterr().err


async def test_a_place_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "none" / "s")
    with pytest.raises(OSError, match="No such file"):
        await engine.serve()
