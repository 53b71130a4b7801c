"""The parent of several workers: its port, its settings, how it starts and ends."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack

import pytest

from proxy.config import ConfigError, load_settings
from proxy.settings import ServerSettings, Settings
from proxy.workers import held_port, settings_of_workers
from tests.crews import children, serving, until_dead
from tests.driver import WORDS, answer
from tests.e2e.test_streams import events
from tests.fakes import ScriptedGuard, ScriptedUpstream
from tests.reliability.environment import ROOT, environment
from tests.sockets import Reply, ask

TEXT = "".join(WORDS)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def listening(port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(("127.0.0.1", port))
    found.listen()
    return found


def test_a_held_port_is_one_for_all_and_takes_no_connection_itself() -> None:
    with held_port(ServerSettings(port=0)) as port:
        assert port > 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with listening(port), listening(port), socket.create_connection(("127.0.0.1", port)):
            pass


def test_a_port_at_which_somebody_listens_is_shared_only_where_that_is_wanted() -> None:
    with held_port(ServerSettings(port=0)) as port, listening(port):
        with pytest.raises(OSError, match="in use"), held_port(ServerSettings(port=port)):
            pass
        with held_port(ServerSettings(port=port, reuse_port=True)) as same:
            assert same == port


def test_workers_get_the_port_and_no_door_for_operators() -> None:
    settings = load_settings(
        overrides={"admin.port": 9464, "guard.address": "unix:/g", "server.workers": 2}, environ={}
    )
    found = settings_of_workers(settings, 5000, ScriptedGuard())
    assert (found.server.port, found.server.reuse_port, found.admin.port) == (5000, True, None)
    assert found.guard.address == "unix:/g"
    assert settings.server.port == Settings().server.port


def test_an_engine_in_a_thread_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match=r"\[server\] workers is more than 1, and needs the guard in a process"):
        load_settings(overrides={"server.workers": 2, "guard.process": False}, environ={})


async def test_a_worker_that_cannot_start_ends_all_with_its_sentence() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve", "--upstream", "http://127.0.0.1:9", "--port", "0"),
        *("--workers", "2", "--threads", "1", "--records-file", "/no/such/folder/r.db"),
        env=environment(),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert said.decode().splitlines() == ["[records] file: there is no folder /no/such/folder."]
    assert process.returncode == 2


async def test_k2_one_process_hands_its_port_to_the_next_under_load() -> None:
    """A second server starts on the port, the first is stopped, nothing is lost; killed, the second leaves nobody."""
    upstream = ScriptedUpstream(answer(WORDS), pause=0.01)
    flags = ("--port", str(free_port()), "--workers", "2")
    given = {"WEIR_SERVER__REUSE_PORT": "true", "WEIR_SERVER__PRE_STOP_SECONDS": "0.3"}
    replies: list[Reply] = []
    is_over = asyncio.Event()

    async def client(url: str) -> None:
        while not is_over.is_set():
            replies.append(await ask(url, stream=True))

    async with upstream.running(), AsyncExitStack() as stack:
        old = await stack.enter_async_context(serving(f"{upstream.url}/v1", *flags, **given))
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(client(old.url))
            new = await stack.enter_async_context(serving(f"{upstream.url}/v1", *flags, **given))
            assert new.url == old.url
            assert await old.end() == 0
            count = len(replies)
            async with asyncio.timeout(60):
                while len(replies) < count + 20:  # noqa: ASYNC110 (of the new one alone)
                    await asyncio.sleep(0.01)
            is_over.set()
        assert all(reply.is_complete and events(reply).content == TEXT for reply in replies)

        [watcher] = children(new.process.pid, "proxy.guard.supervisor")
        below = new.workers | {watcher, new.engine}
        assert len(below) == 4
        os.kill(new.process.pid, signal.SIGKILL)
        await until_dead(below)
