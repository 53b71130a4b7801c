"""The model card's own code as a guard; what every guard does is in test_conformance.py."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.guard.answer import classify
from proxy.guard.files import CheckpointError, Files, find_files
from proxy.guard.pins import sha256_of
from proxy.guard.protocol import GuardError, GuardFault, GuardTimeout
from proxy.guard.remote_code import Lane, RemoteCodeGuard, load_remote_code, start_remote_code_guard
from tests.guard.conformance import CODE, Text, modules_in, settings_of, words
from tests.guard.modeling_small_guard import ENDS, NOT_A_NUMBER, RAISES, UNKNOWN_LABEL


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    return Text(tmp_path_factory.mktemp("guard") / "small")


@asynccontextmanager
async def running(text: Text, **settings: Any) -> AsyncIterator[RemoteCodeGuard]:
    with modules_in(text.folder.parent):
        guard = await start_remote_code_guard(str(text.folder), settings=settings_of(**settings))
    try:
        yield guard
    finally:
        await guard.close()


@pytest.mark.parametrize(
    ("token", "error", "said"),
    [
        (RAISES, GuardFault, "failed on this input: RuntimeError"),
        (ENDS, GuardFault, "failed on this input: RuntimeError"),
        (NOT_A_NUMBER, GuardFault, "not within 0"),
        (UNKNOWN_LABEL, GuardFault, "no verdict that can be read: ValueError"),
    ],
)
async def test_what_the_code_cannot_judge_fails_its_stream_and_no_other(
    text: Text, token: int, error: type[GuardError], said: str
) -> None:
    ids = words(20)
    async with running(text) as guard:
        bad, good = (await guard.open(ids[:10]))[0], (await guard.open(ids[:10]))[0]
        with pytest.raises(error, match=said) as caught:
            await classify(bad, 10, [5, token])
        assert "secret" not in str(caught.value)
        assert len(await classify(good, 10, ids[10:])) == 10
        # It is as it was before.
        assert [risk.level for risk in await classify(bad, 10, ids[10:])] == [
            risk.level for risk in await classify(good, 10, ids[10:])
        ]


async def test_states_are_closed_with_their_streams(text: Text) -> None:
    with modules_in(text.folder.parent):
        model, info, vocabulary = load_remote_code(files_of(text), "auto", "cpu")
    guard = RemoteCodeGuard(model, info, vocabulary, settings_of())
    streams = [(await guard.open(words(8, seed), read=[3]))[0] for seed in range(4)]
    assert model.open_states == 4
    forks = [stream.fork() for stream in streams]
    await asyncio.gather(*(classify(fork, 8, [1, 2]) for fork in forks))
    assert model.open_states == 4, "a fork takes its prompt's state over"
    for stream in streams + forks:
        await stream.close()
    await guard.close()
    assert model.open_states == 0


def files_of(text: Text) -> Files:
    return find_files(str(text.folder), None, {}, with_code=True)


async def test_code_that_hangs_costs_its_deadline_and_does_not_keep_the_guard_from_closing(
    text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.guard.sessions.STOP_SECONDS", 0.2)
    with modules_in(text.folder.parent):
        model, info, vocabulary = load_remote_code(files_of(text), "auto", "cpu")
    guard = RemoteCodeGuard(model, info, vocabulary, settings_of(verdict_seconds=0.3))
    stream, _ = await guard.open(words(8))
    free, loop = asyncio.Event(), asyncio.get_running_loop()
    hanging = loop.create_task(guard.lane.run(lambda: asyncio.run_coroutine_threadsafe(free.wait(), loop).result()))
    with pytest.raises(GuardTimeout):
        await classify(stream, 8, [1])
    await guard.close()
    free.set()
    await hanging


def folder_of(text: Text, tmp_path: Path, **changes: Any) -> str:
    folder = tmp_path / "other"
    shutil.copytree(text.folder, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"auto_map": None}, "no auto_map with an AutoModel"),
        ({"auto_map": {"AutoModel": "else/where--modeling.Guard"}}, "code of another repository"),
        ({"auto_map": {"AutoModel": "modeling_small_guard.State"}}, "own code failed"),
        ({"auto_map": {"AutoModel": "modeling_none.Guard"}}, "own code failed"),
        ({"max_position_embeddings": "long"}, "must say max_position_embeddings"),
    ],
)
async def test_folders_whose_code_cannot_run_are_named(
    text: Text, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = folder_of(text, tmp_path, **changes)
    with modules_in(tmp_path), pytest.raises(CheckpointError, match=said):
        await start_remote_code_guard(folder)


async def test_code_without_the_cards_method_is_named(text: Text, tmp_path: Path) -> None:
    folder = folder_of(text, tmp_path)
    code = Path(folder) / CODE.name
    code.write_text(code.read_text().replace("def stream_moderate_from_ids", "def moderate"))
    with modules_in(tmp_path), pytest.raises(CheckpointError, match="has no stream_moderate_from_ids"):
        await start_remote_code_guard(folder)


async def test_our_engines_number_format_is_not_the_codes(text: Text) -> None:
    with pytest.raises(CheckpointError, match="int8 is our own engine's"):
        await start_remote_code_guard(str(text.folder), dtype="int8")


async def test_pins_cover_the_code_before_it_runs(text: Text, tmp_path: Path) -> None:
    folder = Path(folder_of(text, tmp_path))
    pins = {name: sha256_of([folder / name]) for name in ("config.json", "model.safetensors")}
    with pytest.raises(CheckpointError, match=f"does not name {CODE.name}"):
        await start_remote_code_guard(str(folder), sha256=pins)
    pins[CODE.name] = sha256_of([folder / CODE.name])
    with modules_in(tmp_path):
        await (await start_remote_code_guard(str(folder), sha256=pins)).close()
    (folder / CODE.name).write_text("raise SystemExit")
    with pytest.raises(CheckpointError, match="is not the file that was pinned"):
        await start_remote_code_guard(str(folder), sha256=pins)
    (folder / CODE.name).write_bytes(CODE.read_bytes())
    (folder / "inner").mkdir()
    (folder / "inner" / "more.py").write_text("")
    with pytest.raises(CheckpointError, match=r"does not name inner/more\.py"):
        await start_remote_code_guard(str(folder), sha256=pins)


async def test_a_lane_does_one_thing_after_another_and_gives_errors_to_who_asked() -> None:
    lane = Lane()
    done: list[int] = []

    def fail() -> None:
        raise StopIteration

    results = await asyncio.gather(
        lane.run(lambda: done.append(1)), lane.run(fail), lane.run(lambda: done.append(2)), return_exceptions=True
    )
    assert isinstance(results[1], RuntimeError)
    assert done == [1, 2]
    lane.stop()
