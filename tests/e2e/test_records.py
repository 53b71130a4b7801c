"""Records over the real server: one a request, and nothing that befalls their disk harms a stream."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

from proxy.config import ConfigError
from proxy.record_settings import RecordSettings
from proxy.store.base import StoreError
from proxy.store.filters import Filter
from proxy.store.places import open_reader
from tests.driver import answer, read
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels
from tests.servers import Weir, recorded, weir
from tests.sockets import PATIENCE_SECONDS, ask, http_request

ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "canary-prompt"}]}


async def streamed(server: Weir, **more: Any) -> Any:
    headers = {"authorization": "Bearer sk-canary-key"}
    reply = await ask(server.url, http_request(json.dumps(ASK | more).encode(), headers=headers))
    return read(reply.body)


def kept(file: Path) -> list[dict[str, Any]]:
    with open_reader(RecordSettings(file=file)) as store:
        return list(store.find(Filter(), newest_first=False))


def kept_by_now(file: Path) -> list[dict[str, Any]]:
    """Fewer or none while the writer makes the file."""
    try:
        return kept(file)
    except (ConfigError, StoreError):
        return []


async def until_kept(file: Path, number: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        while len(found := kept_by_now(file)) < number:  # noqa: ASYNC110  the writer is a thread of its own
            await asyncio.sleep(0.02)
    return found


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(folder.glob(pattern))


async def test_every_request_is_kept_as_it_was_logged(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    upstream = ScriptedUpstream(answer(["one", " two", " three", " four"]))
    guard = ScriptedGuard(labels("SSUU"))
    with recorded() as records:
        async with weir(upstream, guard, records__file=str(file)) as server:
            assert (await streamed(server)).content.startswith("one two")
            guard.rule = labels("")
            assert (await streamed(server, stream_options={"include_usage": True})).is_done
            assert (await ask(server.url, http_request(b"{}"))).status == 400
            await until_kept(file, 3)
    assert kept(file) == [json.loads(line) for line in records.lines]
    assert [one["outcome"] for one in kept(file)] == ["cut", "complete", "refused"]


async def test_a_cut_can_be_replayed_token_by_token_without_its_text(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    upstream = ScriptedUpstream(answer(["one", " two", " three", " four"]))
    async with weir(upstream, ScriptedGuard(labels("SSUU")), records__file=str(file)) as server:
        await streamed(server)
        [record] = await until_kept(file, 1)
    with open_reader(RecordSettings(file=file)) as store:
        found = store.show(record["request_id"])
    assert found is not None
    [channel] = found.pop("trace")["channels"]
    assert found == record
    assert channel["views"][0]["ends"] == [3, 7, 13, 18]
    assert channel["views"][0]["levels"] == ["Safe", "Safe", "Unsafe", "Unsafe"]
    assert set(channel) == {"choice", "channel", "views"}


async def test_content_is_kept_where_the_policy_says_so_without_keys(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    upstream = ScriptedUpstream(answer(["canary-answer sk", "-canary-key", " our-own-upstream-key"]))
    settings: dict[str, Any] = {"records__file": str(file), "upstream__api_key": "our-own-upstream-key"}
    messages = [{"role": "user", "content": "canary-prompt, password: hunter2hunter2"}]
    async with weir(upstream, records__content=True, **settings) as server:
        await streamed(server, messages=messages)
        await until_kept(file, 1)
    async with weir(upstream, records__content=True, policy__record_content=False, **settings) as server:
        await streamed(server, messages=messages)
        await until_kept(file, 2)
    with open_reader(RecordSettings(file=file)) as store:
        first, second = [store.show(one["request_id"]) for one in kept(file)]
    assert first is not None
    assert second is not None
    [channel] = first["trace"]["channels"]
    assert channel["text"] == f"canary-answer {'*' * 13} {'*' * 20}"
    assert first["trace"]["prompt"] == [{"role": "user", "content": f"canary-prompt, password: {'*' * 14}"}]
    assert "canary" not in json.dumps(second)


async def test_what_is_kept_holds_no_content_and_no_key(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    upstream = ScriptedUpstream(answer(["canary", "-answer", " and", " more"]))
    guard = ScriptedGuard(labels("SSSUU"))
    async with weir(upstream, guard, records__file=str(file)) as server:
        await streamed(server)
        await until_kept(file, 1)
        guard.prompt_level = UNSAFE
        assert (await ask(server.url, http_request(json.dumps(ASK).encode()))).status == 400
        found = await until_kept(file, 2)
    with open_reader(RecordSettings(file=file)) as store:
        assert "canary" not in json.dumps([store.show(one["request_id"]) for one in found])
    for one in files_in(tmp_path):
        assert b"canary" not in one.read_bytes()


async def test_a_locked_database_holds_up_no_stream_and_gets_the_records_later(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    upstream = ScriptedUpstream(answer(["one", " two"]))
    async with weir(upstream, records__file=str(file)) as server:
        await streamed(server)
        await until_kept(file, 1)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(20):
                assert (await streamed(server)).is_done
        other.execute("ROLLBACK")
        other.close()
        assert len(await until_kept(file, 21)) == 21


async def test_a_database_that_breaks_is_set_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    upstream = ScriptedUpstream(answer(["one", " two"]))
    file.write_bytes(b"no database" * 1000)
    async with weir(upstream, records__file=str(file)) as server:
        assert (await streamed(server)).is_done
        assert (await streamed(server)).is_done
        await until_kept(file, 2)
    [broken] = files_in(tmp_path, "records.db.broken-*")
    assert broken.read_bytes().startswith(b"no database")


async def test_a_file_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    async with weir(ScriptedUpstream(answer(["one"])), records__file=str(file)) as server:
        await streamed(server)
        await until_kept(file, 1)
        for one in files_in(tmp_path):
            one.unlink()
        await streamed(server)
        assert len(await until_kept(file, 1)) == 1
