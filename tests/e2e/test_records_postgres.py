"""Records in PostgreSQL over the real server: of several instances, and no stream waits for a database."""

import asyncio
import json
from typing import Any

from proxy.config import ConfigError
from proxy.record_settings import RecordSettings
from proxy.store import writer
from proxy.store.base import StoreError
from proxy.store.filters import Filter
from proxy.store.places import open_reader
from tests.driver import answer
from tests.e2e.test_records import streamed
from tests.fakes import ScriptedGuard, ScriptedUpstream, labels
from tests.postgres import cluster, url_of_schema
from tests.servers import recorded, weir


def kept(url: str) -> list[dict[str, Any]]:
    """None while the tables are being made."""
    try:
        with open_reader(RecordSettings.model_validate({"url": url})) as store:
            return list(store.find(Filter(), newest_first=False))
    except (ConfigError, StoreError):
        return []


async def until_kept(url: str, number: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        while len(found := await asyncio.to_thread(kept, url)) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


async def test_requests_of_two_instances_are_kept_as_they_were_logged() -> None:
    url = url_of_schema()
    upstream = ScriptedUpstream(answer(["one", " two", " three", " four"]))
    with recorded() as records:
        async with (
            weir(upstream, ScriptedGuard(labels("SSUU")), records__url=url) as first,
            weir(ScriptedUpstream(answer(["one"])), records__url=url) as second,
        ):
            await streamed(first)
            await until_kept(url, 1)
            await streamed(second)
            found = await until_kept(url, 2)
    assert found == [json.loads(line) for line in records.lines]
    assert [one["outcome"] for one in found] == ["cut", "complete"]


async def test_a_server_that_is_away_holds_up_no_start_and_no_stream(monkeypatch: Any) -> None:
    monkeypatch.setattr(writer, "LAST_RETRY_SECONDS", 0.5)
    server = cluster()
    url = url_of_schema(server.url)
    server.stop()
    try:
        async with weir(ScriptedUpstream(answer(["one", " two"])), records__url=url) as instance:
            for _ in range(10):
                assert (await streamed(instance)).is_done
            await asyncio.to_thread(server.start)
            assert len(await until_kept(url, 10)) == 10
            await asyncio.to_thread(server.kill)
            for _ in range(10):
                assert (await streamed(instance)).is_done
            await asyncio.to_thread(server.start)
            assert len(await until_kept(url, 20)) == 20
    finally:
        if not server.is_up:
            server.start()
