"""Records in PostgreSQL over the real server: of several instances, and no stream waits for a database."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from proxy.config import ConfigError
from proxy.record_settings import RecordSettings
from proxy.store import writer
from proxy.store.base import StoreError
from proxy.store.filters import Filter
from proxy.store.places import open_reader
from tests.crews import scripted_guard, serving
from tests.driver import WORDS, answer
from tests.e2e.test_records import streamed
from tests.fakes import ScriptedGuard, ScriptedUpstream, labels
from tests.postgres import cluster, url_of_schema
from tests.reliability.environment import ROOT, environment
from tests.servers import recorded, weir
from tests.sockets import ask, free_port, http_request
from tests.test_crew import Streams


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


def listed(url: str) -> list[str]:
    """The ids that `weir records list` finds."""
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "records", "list", "--json", "--limit", "500"],
        env=environment(PYTHONPATH=str(ROOT), WEIR_RECORDS__URL=url),
        capture_output=True,
        check=True,
        timeout=120,
    )
    return [json.loads(line)["request_id"] for line in done.stdout.splitlines()]


async def ids_in_the_console(operators: str) -> list[str]:
    request = http_request(b"", method="GET", path="/console/records?limit=500", headers={"Content-Type": ""})
    reply = await ask(operators, request)
    assert reply.status == 200, reply.raw
    return [one["request_id"] for one in reply.json["records"]]


# Other systems tell it in other ways, and what is tested is the same on each.
@pytest.mark.skipif(sys.platform != "linux", reason="which worker has a connection is read from /proc")
async def test_all_workers_write_one_database_and_a_killed_one_loses_its_own_streams_alone() -> None:
    url = url_of_schema()
    upstream = ScriptedUpstream(answer(WORDS), pause=0.15)
    async with (
        upstream.running(),
        scripted_guard() as guard,
        serving(
            f"{upstream.url}/v1",
            *("--port", "0", "--workers", "3"),
            WEIR_RECORDS__URL=url,
            WEIR_ADMIN__PORT=str(admin := free_port()),
            **guard,
        ) as server,
    ):
        first = Streams(server, 30)
        await first.run(lambda _: None)
        assert len(set(first.holders.values())) > 1, "one worker has them all"
        ids = sorted(reply.headers["x-weir-request-id"] for reply in first.replies.values())
        assert sorted(one["request_id"] for one in await until_kept(url, 30)) == ids

        killed: list[int] = []

        def kill_worker(now: Streams) -> None:
            killed.append(next(iter(now.holders.values())))
            os.kill(killed[0], signal.SIGKILL)

        second = Streams(server, 20)
        await second.run(kill_worker)
        await server.said(b"a worker died (SIGKILL) and is replaced")
        # Those of the other workers were written or are about to be; what the dead one had queued was written before.
        others = [reply for port, reply in second.replies.items() if second.holders[port] != killed[0]]
        ids = sorted([*ids, *(reply.headers["x-weir-request-id"] for reply in others)])
        assert sorted(one["request_id"] for one in await until_kept(url, len(ids))) == ids
        assert sorted(await ids_in_the_console(f"http://127.0.0.1:{admin}")) == ids
        assert sorted(await asyncio.to_thread(listed, url)) == ids

        third = Streams(server, 10)  # some of them by the worker that replaced it
        await third.run(lambda _: None)
        assert await server.end() == 0
    ids = sorted([*ids, *(reply.headers["x-weir-request-id"] for reply in third.replies.values())])
    assert sorted(one["request_id"] for one in kept(url)) == ids
