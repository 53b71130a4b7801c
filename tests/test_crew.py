"""Workers under a parent: killed, replaced, asked and stopped. Real processes, so each test does much."""

import asyncio
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from proxy.crew import cause
from tests.crews import Serving, holders, serving, until_dead
from tests.driver import WORDS, answer
from tests.e2e.test_streams import events
from tests.fakes import ScriptedUpstream
from tests.sockets import PATIENCE_SECONDS, Reply, ask, connected, free_port, http_request

TEXT = "".join(WORDS)
linux = pytest.mark.skipif(sys.platform != "linux", reason="which process has a connection is read from /proc")


async def numbers(url: str) -> dict[str, float]:
    """What the operators are told, without labels."""
    reply = await ask(f"{url}", http_request(b"", method="GET", path="/metrics", headers={"Host": "127.0.0.1"}))
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", reply.body.decode(), re.MULTILINE)}


class Streams:
    """Many answers at once, each on a connection of its own."""

    def __init__(self, server: Serving, count: int) -> None:
        self._server, self._count = server, count
        self.holders: dict[int, int] = {}  # the worker of each, by its client's port
        self.replies: dict[int, Reply] = {}
        self._begun = 0

    async def run(self, disturb: Callable[["Streams"], None]) -> None:
        """All have begun, then it is disturbed, then all end."""
        async with asyncio.timeout(5 * PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._one())
            while self._begun < self._count:  # noqa: ASYNC110 (a number that the loop changes)
                await asyncio.sleep(0.01)
            port = urlsplit(self._server.url).port
            assert port is not None
            self.holders = holders(port, self._server.workers)
            disturb(self)

    async def _one(self) -> None:
        async with connected(self._server.url) as client:
            await client.send(http_request(stream=True))
            await client.read_until(b" two")
            self._begun += 1
            port = client.port
            self.replies[port] = await client.reply()

    def whole(self, port: int) -> bool:
        reply = self.replies[port]
        return reply.is_complete and events(reply).content == TEXT


def test_the_end_of_a_process_has_a_name() -> None:
    assert (cause(-9), cause(3)) == ("SIGKILL", "status 3")


async def the_console_shows_all(operators: str) -> None:
    async def asked(path: str, body: dict[str, Any] | bytes = b"", method: str = "GET") -> Any:
        headers = {"Host": "localhost", **({} if body else {"Content-Type": ""})}
        reply = await ask(operators, http_request(body, method=method, path=path, headers=headers))
        assert reply.status == 200, reply.raw
        return reply.json

    live = await asked("/console/live")
    assert (live["workers"], live["worker_deaths"], live["draining"]) == (3, 1, False)
    assert live["requests"]["complete"] >= 10
    async with asyncio.timeout(60):
        # Of 30, without those of the worker that was killed, which may have held most of its 20.
        while len((await asked("/console/records?limit=500"))["records"]) < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert (await asked("/console/about"))["keeps_records"]
    assert (await asked("/console/health"))["ready"]
    judged = await asked("/console/judge", {"messages": [{"role": "assistant", "content": "A harmless text."}]}, "POST")
    assert judged["texts"][0]["tokens"]


@linux
async def test_k3_the_death_of_a_worker_or_the_engine_harms_no_other_stream(tmp_path: Path) -> None:
    upstream = ScriptedUpstream(answer(WORDS), pause=0.15)
    file = tmp_path / "weir.toml"
    file.write_text('[records]\nfile = "r.db"\n')
    async with (
        upstream.running(),
        serving(
            f"{upstream.url}/v1",
            *("--port", "0", "--workers", "3", "--config", str(file), "--records-file", str(tmp_path / "r.db")),
            WEIR_ADMIN__PORT=str(admin := free_port()),
        ) as server,
    ):
        before, operators = server.workers, f"http://127.0.0.1:{admin}"
        assert len(before) == 3
        killed: list[int] = []

        def kill_worker(now: Streams) -> None:
            killed.append(next(iter(now.holders.values())))
            os.kill(killed[0], signal.SIGKILL)

        first = Streams(server, 20)
        await first.run(kill_worker)
        assert len(first.holders) == 20
        assert len(set(first.holders.values())) > 1
        assert [port for port in first.replies if first.whole(port)] == [
            port for port in first.replies if first.holders[port] != killed[0]
        ]
        await server.said(b"a worker died (SIGKILL) and is replaced")
        async with asyncio.timeout(5 * PATIENCE_SECONDS):
            while (told := await numbers(operators))["weir_workers"] < 3:  # noqa: ASYNC110 (of others)
                await asyncio.sleep(0.1)
        assert told["weir_worker_deaths_total"] == 1
        assert len(server.workers & before) == 2

        second = Streams(server, 10)
        await second.run(lambda _: os.kill(server.engine, signal.SIGKILL))
        assert all(second.whole(port) for port in second.replies)
        await the_console_shows_all(operators)

        file.write_text('[policy]\nname = "new"\n[records]\nfile = "r.db"\n')
        server.process.send_signal(signal.SIGHUP)
        await server.said(b"settings reloaded: [policy] name changed")
        for _ in range(3):  # each is asked behind the order to adopt it, and waited for a second at the most
            await numbers(operators)
        third = Streams(server, 10)
        await third.run(lambda _: server.process.send_signal(signal.SIGTERM))
        assert all(third.whole(port) for port in third.replies)
        assert {reply.headers["x-weir-policy"] for reply in third.replies.values()} == {"new"}
        async with asyncio.timeout(3 * PATIENCE_SECONDS):
            assert await server.process.wait() == 0
        await until_dead(before | server.workers)
    kept = sqlite3.connect(tmp_path / "r.db").execute("SELECT count(*) FROM records").fetchone()[0]
    assert kept == 20 - list(first.holders.values()).count(killed[0]) + 10 + 10
