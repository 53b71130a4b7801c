"""The parent of several workers: its port, its settings, how it starts and ends."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from proxy.config import ConfigError, load_settings
from proxy.guard.rows import CATEGORIES
from proxy.identity import digest_of
from proxy.risk import Role
from proxy.server_settings import ServerSettings
from proxy.settings import Settings
from proxy.workers import held_port, settings_of_workers
from tests.crews import children, holders, scripted_guard, serving, starting, until_dead
from tests.driver import WORDS, answer
from tests.e2e.test_streams import events
from tests.fakes import ScriptedUpstream
from tests.guard.checkpoints import Reference
from tests.guard.scripted_sglang import ScriptedSGLang
from tests.reliability.environment import ROOT, environment
from tests.sockets import PATIENCE_SECONDS, Client, Reply, ask, connected, free_port, http_request

TEXT = "".join(WORDS)
# Servers that take the port over, one from another.
RESTARTS = 10 if os.environ.get("WEIR_LONG") else 1


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
    found = settings_of_workers(settings, 5000)
    assert (found.server.port, found.server.reuse_port, found.admin.port) == (5000, True, None)
    assert found.guard.address == "unix:/g"
    assert settings.server.port == Settings().server.port


def test_an_engine_in_a_thread_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match=r"\[server\] workers is more than 1, and needs the guard in a process"):
        load_settings(overrides={"server.workers": 2, "guard.process": False}, environ={})


async def test_a_worker_that_cannot_start_ends_all_with_its_sentence() -> None:
    async with scripted_guard() as guard, asyncio.timeout(5 * PATIENCE_SECONDS):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", "--upstream", "http://127.0.0.1:9", "--port", "0"),
            *("--workers", "2", "--records-file", "/no/such/folder/r.db"),
            env=environment(**guard),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
    assert said.decode().splitlines() == ["[records] file: there is no folder /no/such/folder."]
    assert process.returncode == 2


async def test_b17_limits_of_keys_and_a_reload_hold_over_all_workers(tmp_path: Path) -> None:
    """Ten are allowed: ten of forty run, over two workers. One dies and its share is free; a key is taken back."""
    upstream = ScriptedUpstream(answer(WORDS), stall_at=3)
    keys = {"alice": "max_streams = 10", "bob": ""}
    tables = {
        name: f'[[auth.keys]]\nname = "{name}"\nsha256 = "{digest_of(f"weir-{name}")}"\n{limit}\n'
        for name, limit in keys.items()
    }
    file = tmp_path / "weir.toml"
    file.write_text("".join(tables.values()))
    flags = ("--port", "0", "--workers", "2", "--config", str(file), "--upstream-key", "sk-ours")
    async with (
        upstream.running(),
        serving(f"{upstream.url}/v1", *flags, WEIR_ADMIN__PORT=str(admin := free_port())) as server,
        AsyncExitStack() as stack,
    ):

        async def heads(count: int, key: str = "weir-alice") -> list[tuple[Client, bytes]]:
            """As many at once, each on a connection of its own, up to its first word or its refusal."""
            clients = [await stack.enter_async_context(connected(server.url)) for _ in range(count)]
            for client in clients:
                await client.send(http_request(stream=True, headers={"x-api-key": key}))
            for client in clients:
                await client.read_until(b"}")
            return [(client, client.received[:12]) for client in clients]

        first = await heads(40)
        running = [client for client, head in first if head.endswith(b"200")]
        assert len(running) == 10
        assert sum(head.endswith(b"429") for _, head in first) == 30
        assert sum(head.endswith(b"200") for _, head in await heads(3, "weir-bob")) == 3

        held = holders(int(server.url.rpartition(":")[2]), server.workers)
        dying = max(held.values(), key=lambda pid: sum(held.get(client.port) == pid for client in running))
        died = [client for client in running if held[client.port] == dying]
        os.kill(dying, signal.SIGKILL)
        await server.said(b"a worker died (SIGKILL) and is replaced")
        async with asyncio.timeout(60):
            while len(server.workers) < 2 or b" weir_workers 2.0" not in b" " + (await told(admin)):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        second = await heads(20)
        assert sum(head.endswith(b"200") for _, head in second) == len(died)

        file.write_text(tables["alice"])
        reply = await ask(f"http://127.0.0.1:{admin}", http_request(b"", path="/reload", headers={"Host": "localhost"}))
        assert (reply.status, reply.json) == (200, {"changed": ["[auth] keys"], "needs_restart": []})
        async with asyncio.timeout(30):  # until each worker has heard of it
            while not all(head.endswith(b"401") for _, head in await heads(10, "weir-bob")):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_once_one_worker_says_that_it_is_ready_all_serve() -> None:
    """A load balancer asks whichever the system picks, and sends what comes next to any of them."""
    upstream, port = ScriptedUpstream(answer(WORDS)), free_port()
    url, readyz = f"http://127.0.0.1:{port}", http_request(b"", method="GET", path="/readyz")
    flags = ("--port", str(port), "--workers", "3")

    async def is_ready() -> bool:
        try:
            return (await ask(url, readyz)).status == 200
        except OSError:
            return False

    async with (
        upstream.running(),
        scripted_guard() as guard,
        asyncio.timeout(5 * PATIENCE_SECONDS),
        starting(f"{upstream.url}/v1", *flags, **guard),
    ):
        while not await is_ready():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.005)
        replies = await asyncio.gather(*(ask(url, stream=True) for _ in range(30)))
    assert [reply.status for reply in replies] == [200] * 30


class AllSafe:
    """In place of a `Reference`."""

    def logits(self, ids: list[int]) -> dict[str, Tensor]:
        levels, categories = torch.tensor([[9.0, 0.0, 0.0]]), {"": Role.ASSISTANT, "query_": Role.USER}
        found = {}
        for prefix, role in categories.items():
            found[f"{prefix}risk_level_head"] = levels.expand(len(ids), -1)
            found[f"{prefix}category_head"] = torch.zeros(len(ids), len(CATEGORIES[role]))
        return found


async def test_workers_ask_a_guard_that_others_run_each_by_itself() -> None:
    """There is no address that their parent would have to tell them first."""
    script, upstream = ScriptedSGLang(cast(Reference, AllSafe())), ScriptedUpstream(answer(WORDS))
    async with script.running(), upstream.running():
        guard = {"BACKEND": "sglang", "SGLANG_URL": script.url, "TOKEN": script.key, "WINDOW": "2048"}
        given = {f"WEIR_GUARD__{name}": text for name, text in guard.items()}
        flags = ("--port", "0", "--workers", "2")
        async with asyncio.timeout(3 * PATIENCE_SECONDS), serving(f"{upstream.url}/v1", *flags, **given) as server:
            assert events(await ask(server.url, stream=True)).content == TEXT


async def told(admin: int) -> bytes:
    request = http_request(b"", method="GET", path="/metrics", headers={"Host": "localhost"})
    return b" ".join((await ask(f"http://127.0.0.1:{admin}", request)).body.splitlines())


async def test_k2_one_process_hands_its_port_to_the_next_under_load() -> None:
    """Another server starts on the port, the one before is stopped, nothing is lost; killed, the last leaves nobody."""
    upstream = ScriptedUpstream(answer(WORDS), pause=0.03)
    flags = ("--port", str(free_port()), "--workers", "2")
    given = {"WEIR_SERVER__REUSE_PORT": "true", "WEIR_SERVER__PRE_STOP_SECONDS": "0.3"}
    replies: list[Reply] = []
    is_over = asyncio.Event()

    async def client(url: str) -> None:
        while not is_over.is_set():
            replies.append(await ask(url, stream=True))

    async with upstream.running(), AsyncExitStack() as stack:
        last = await stack.enter_async_context(serving(f"{upstream.url}/v1", *flags, **given))
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(client(last.url))
            for _ in range(RESTARTS):
                new = await stack.enter_async_context(serving(f"{upstream.url}/v1", *flags, **given))
                assert new.url == last.url
                assert await last.end() == 0
                last, count = new, len(replies)
                async with asyncio.timeout(5 * PATIENCE_SECONDS):
                    while len(replies) < count + 20:  # noqa: ASYNC110 (of the new one alone)
                        await asyncio.sleep(0.01)
            is_over.set()
        print(f"{RESTARTS} restarts, {len(replies)} requests")
        assert all(reply.is_complete and events(reply).content == TEXT for reply in replies)

        [watcher] = children(last.process.pid, "proxy.guard.supervisor")
        below = last.workers | {watcher, last.engine}
        assert len(below) == 4
        os.kill(last.process.pid, signal.SIGKILL)
        await until_dead(below)
