"""Section K of docs/reliability.md: how a server ends."""

import asyncio
import os
import random
import re
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from proxy.app import running
from proxy.config import load_settings
from proxy.entrance import PUBLIC
from proxy.handlers import CURRENT, metrics_of
from proxy.identity import digest_of
from proxy.loading import Loading
from tests.crews import scripted_guard
from tests.driver import WORDS, answer
from tests.e2e.test_streams import events
from tests.fakes import ScriptedGuard, ScriptedUpstream
from tests.reliability.environment import ROOT, environment
from tests.reliability.upstreams import ByUser
from tests.servers import PATIENT, weir
from tests.sockets import PATIENCE_SECONDS, Reply, ask, connected, free_port, http_request

TEXT = "".join(WORDS)
CLIENTS, RESTARTS = (200, 10) if os.environ.get("WEIR_LONG") else (20, 5)


async def asked(url: str, user: str) -> Reply:
    async with connected(url) as client:
        await client.send(http_request(stream=True, user=user))
        return await client.reply()


async def test_k1_before_it_stops_it_is_not_ready_and_still_takes_requests() -> None:
    upstream = ScriptedUpstream(answer(WORDS))
    async with upstream.running(), AsyncExitStack() as stack:
        values = {**PATIENT, "server.port": 0, "upstream.base_url": upstream.url, "server.pre_stop_seconds": 1.5}
        settings = load_settings(overrides=values, environ={})
        port = await stack.enter_async_context(running(settings, ScriptedGuard()))
        url = f"http://127.0.0.1:{port}"
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(stack.aclose())
            await asyncio.sleep(0)  # it has begun to stop
            ready = await ask(url, http_request(b"", method="GET", path="/readyz"))
            assert (ready.status, ready.headers["connection"]) == (503, "close")
            reply = await ask(url, stream=True)
            assert events(reply).content == TEXT
            assert reply.headers["connection"] == "close"
            assert not stopping.done()
        with pytest.raises(ConnectionRefusedError):
            await ask(url)


async def test_k2_a_rolling_restart_loses_no_request() -> None:
    """Ten times a new server takes the port over from the old one, while clients ask without a pause."""
    guard, upstream = ScriptedGuard(), ScriptedUpstream(answer(WORDS))
    given = {**PATIENT, "server.reuse_port": True, "server.pre_stop_seconds": 0.1, "server.drain_seconds": 5}
    async with upstream.running():
        values = {"upstream.base_url": upstream.url, "server.port": free_port(), **given}
        settings = load_settings(overrides=values, environ={})
        url = f"http://127.0.0.1:{settings.server.port}"
        is_over = asyncio.Event()
        replies: list[Reply] = []

        async def client() -> None:
            while not is_over.is_set():
                replies.append(await ask(url, stream=True))

        async with AsyncExitStack() as last, asyncio.TaskGroup() as group:
            old = AsyncExitStack()
            await old.enter_async_context(running(settings, guard))
            for _ in range(4):
                group.create_task(client())
            for _ in range(10):
                new = AsyncExitStack()
                await new.enter_async_context(running(settings, guard))
                await old.aclose()
                old = new
            is_over.set()
            last.push_async_callback(old.aclose)
    assert len(replies) > 40
    assert all(reply.is_complete and events(reply).content == TEXT for reply in replies)


async def test_k6_while_the_guard_loads_every_door_is_a_503_and_nothing_passes_unjudged() -> None:
    upstream, guard = ScriptedUpstream(answer(WORDS)), ScriptedGuard()
    app: list[web.Application] = []
    async with upstream.running():
        values = {"server.port": 0, "upstream.base_url": upstream.url, "guard.on_failure": "open"}
        values |= {"policy.on_flag": "monitor", "passthrough.allow": "files"}  # no setting lets anything through
        values |= {"auth.keys": [{"name": "a", "sha256": digest_of("weir-a")}], "upstream.api_key": "sk-ours"}
        settings = load_settings(overrides=values, environ={})
        async with running(settings, Loading(), app.append) as port, connected(f"http://127.0.0.1:{port}") as client:
            url, key = f"http://127.0.0.1:{port}", {"x-api-key": "weir-a"}
            for path, status in (("/healthz", 200), ("/readyz", 503)):
                assert (await ask(url, http_request(b"", method="GET", path=path))).status == status
            for route in app[0].router.routes():
                assert route.resource is not None
                path = route.resource.canonical.replace("{response_id}", "resp_1").replace("{id0}", "f-1")
                if path in PUBLIC:
                    continue
                reply = await ask(url, http_request(method=route.method, path=path, headers=key))
                assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "starting", "3"), path
                assert (await ask(url, http_request(method=route.method, path=path))).status == 401
            assert b'weir_errors_total{code="starting"}' in metrics_of(app[0]).text()
            assert upstream.requests == []
            await client.send(http_request(headers=key))
            assert (await client.reply()).status == 503
            app[0][CURRENT].arrive(guard)
            client.received = b""
            await client.send(http_request(headers=key, stream=True))  # the same connection
            assert events(await client.reply()).content == TEXT
            assert (await ask(url, http_request(b"", method="GET", path="/readyz"))).status == 200


@pytest.mark.parametrize("workers", [1, 2])
async def test_k6_a_server_listens_while_its_guard_loads_and_stops_at_once(workers: int, tmp_path: Path) -> None:
    """The guard's first file is a pipe into which nobody writes."""
    os.mkfifo(tmp_path / "config.json")
    flags = ("--port", "0", "--workers", str(workers), "--guard", str(tmp_path), "--upstream", "http://127.0.0.1:9")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve", *flags),
        env=environment(WEIR_SERVER__PRE_STOP_SECONDS="600", WEIR_SERVER__DRAIN_SECONDS="600"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(300):
        assert process.stderr is not None
        line = (await process.stderr.readline()).decode()
        url = "http://" + line.split("until then ")[1].split()[0]
        for path, status in (("/healthz", 200), ("/readyz", 503)):
            assert (await ask(url, http_request(b"", method="GET", path=path))).status == status
        reply = await ask(url)
        assert (reply.status, reply.error["code"]) == (503, "starting")
        process.send_signal(signal.SIGTERM)
        rest = await process.stderr.read()
        assert (await process.wait(), rest) == (0, b"")


async def test_k2_who_keeps_a_connection_loses_no_request_at_a_restart() -> None:
    """Clients that use a connection again for as long as it is open, with pauses of all lengths."""
    guard, upstream = ScriptedGuard(), ScriptedUpstream(answer(WORDS[:2]))
    given = {"server.reuse_port": True, "server.pre_stop_seconds": 0.2, "server.drain_seconds": 5}
    async with upstream.running():
        values = {"upstream.base_url": upstream.url, "server.port": free_port(), **given}
        settings = load_settings(overrides=values, environ={})
        is_over = asyncio.Event()
        replies: list[Reply] = []
        kept = 0

        async def client(number: int) -> None:
            nonlocal kept
            pauses = random.Random(number)
            while not is_over.is_set():
                async with AsyncExitStack() as stack:
                    try:
                        one = await stack.enter_async_context(connected(f"http://127.0.0.1:{settings.server.port}"))
                    except ConnectionError:  # nothing has been sent
                        continue
                    while not (is_over.is_set() or one.has_ended):
                        one.received = b""
                        await one.send(http_request(stream=True))
                        replies.append(await one.reply())
                        if replies[-1].headers.get("connection") == "close":
                            break
                        kept += 1
                        await asyncio.sleep(pauses.random() * 0.3)

        old = AsyncExitStack()
        await old.enter_async_context(running(settings, guard))
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number))
            for _ in range(RESTARTS):
                new = AsyncExitStack()
                await new.enter_async_context(running(settings, guard))
                await old.aclose()
                old = new
            is_over.set()
        await old.aclose()
    print(f"{len(replies)} requests, {kept} connections kept for another")
    assert kept > CLIENTS
    lost = [reply.raw[:200] for reply in replies if not reply.is_complete or events(reply).content != "one two"]
    assert lost == []


async def test_k1_a_signal_lets_answers_finish_and_tells_the_rest() -> None:
    """A server of its own: short answers end whole, long ones with an error that says why, and then it exits with 0."""
    endless = [*answer(WORDS)[:6], *[b": x\n\n"] * 1000]
    upstream = ByUser(answers={"short": answer(WORDS), "long": endless}, pause=0.05)
    async with asyncio.timeout(6 * PATIENCE_SECONDS), upstream.running(), scripted_guard() as guard:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", "--upstream", upstream.url, "--port", "0"),
            env=environment(WEIR_SERVER__DRAIN_SECONDS="3", **guard),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        while not (line := (await process.stderr.readline()).decode()).startswith("weir "):
            assert line
        url = line.split()[2].removesuffix("/v1")
        ready = await ask(url, http_request(b"", method="GET", path="/readyz"))
        assert ready.status == 200
        async with asyncio.TaskGroup() as group:
            short = [group.create_task(asked(url, "short")) for _ in range(5)]
            long = [group.create_task(asked(url, "long")) for _ in range(2)]
            while len(upstream.started) < len(short + long):  # noqa: ASYNC110 (the upstream has no event for it)
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            said = await process.stderr.read()
        assert await process.wait() == 0
    assert all(task.result().is_complete and events(task.result()).content == TEXT for task in short)
    for task in long:
        assert not task.result().is_complete
        assert (events(task.result()).error or {})["code"] == "shutting_down"
    assert b"Traceback" not in said


async def test_k5_a_clock_that_jumps_by_a_day_ends_nothing_and_hangs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, ahead = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    upstream = ScriptedUpstream(answer(WORDS), pause=0.02)
    async with weir(upstream, upstream__idle_seconds=20, guard__verdict_seconds=20) as server:
        for jump in (86_400.0, -86_400.0):
            async with connected(server.url) as client:
                ahead = 0.0
                await client.send(http_request(stream=True))
                await client.read_until(b"one")
                ahead = jump
                reply = await client.reply()
            assert events(reply).content == TEXT
            assert reply.is_complete
            assert (await ask(server.url, http_request(b"", method="GET", path="/readyz"))).status == 200


def test_k5_nothing_waits_by_the_clock_on_the_wall() -> None:
    """What asks for the time of day writes it down or prunes by it; no deadline is made of it."""
    files = [path for room in ("proxy", "adapters") for path in (ROOT / room).rglob("*.py")]
    asking = {
        path.relative_to(ROOT).as_posix() for path in files if re.search(r"\btime\.time\(|\.now\(", path.read_text())
    }
    assert asking <= {
        "proxy/client_writer.py",
        "proxy/demo.py",
        "proxy/store/writer.py",
        "proxy/store/options.py",
        "proxy/store/sqlite.py",
        "proxy/console/search.py",
        "proxy/records.py",
        "adapters/metadata.py",
        "adapters/openai_responses_head.py",
    }
