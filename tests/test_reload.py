"""Settings that are read again: what changes, what waits for a restart, and what a bad file does not break."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from proxy.app import running
from proxy.config import ConfigError, load_settings
from proxy.handlers import CURRENT
from proxy.identity import digest_of
from proxy.reload import Reloaded, Reloader, differences, live_settings, told
from proxy.settings import Settings, UpstreamSettings
from tests.crews import scripted_guard
from tests.driver import WORDS, answer, read
from tests.fakes import CONTROVERSIAL, ScriptedGuard, ScriptedUpstream
from tests.reliability.environment import ROOT, environment
from tests.servers import PATIENT
from tests.sockets import PATIENCE_SECONDS, Reply, ask, connected, http_request

TEXT = "".join(WORDS)


def settings_of(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "weir.toml"
    file.write_text(text)
    return load_settings(file, {}, {})


def test_what_may_change_is_taken_and_the_rest_waits(tmp_path: Path) -> None:
    now = settings_of(tmp_path, "[policies.old]\nmode = 'strict'\n")
    found = settings_of(
        tmp_path,
        """
        [server]
        port = 9
        max_streams = 7
        max_lag_seconds = 2
        [upstream]
        api_key = "sk-canary"
        [guard]
        model = "other"
        [[auth.keys]]
        name = "a"
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
        [passthrough]
        allow = ["files"]
        idle_seconds = 3
        [policy]
        mode = "strict"
        [policy.categories]
        pii = "allow"
        [policies.new]
        debounce = 1
        [[rules]]
        policy = "new"
        [annotations]
        weir = false
        [log]
        level = "error"
        file = "x"
        """,
    )
    live = live_settings(now, found)
    assert (live.policy, live.policies, live.rules) == (found.policy, found.policies, found.rules)
    assert (live.annotations, live.log.level) == (found.annotations, "error")
    assert (live.server.port, live.server.max_streams) == (now.server.port, 7)
    assert live.server.max_lag_seconds == 2
    assert (live.upstream, live.auth, live.log.file) == (found.upstream, found.auth, None)
    assert (live.guard, live.passthrough.allow, live.passthrough.idle_seconds) == (now.guard, (), 3)
    assert str(Reloaded(told(now, live), told(live, found))) == (
        "[server] max_streams, [server] max_lag_seconds, [upstream] api_key, [policy] mode, [policy] categories.PII, "
        "[policies] old, [policies] new, [[rules]], [annotations] weir, [auth] keys, [passthrough] idle_seconds, "
        "[log] level changed; [server] port, [guard] model, [passthrough] allow, [log] file changed too, "
        "and need a restart"
    )
    assert str(Reloaded(told(now, now), ())) == "nothing changed"


def test_a_secret_is_told_by_its_key_alone() -> None:
    one, other = (Settings(upstream=UpstreamSettings(api_key=SecretStr(f"sk-canary{n}"))) for n in (1, 2))
    assert list(differences(one, other)) == [("upstream", "api_key")]
    assert "canary" not in str(told(one, other))


@asynccontextmanager
async def reloading(reloader: Reloader) -> AsyncIterator[None]:
    stopped = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(reloader.run(stopped))
        yield
        stopped.set()


async def asked(reloader: Reloader, caplog: pytest.LogCaptureFixture) -> str:
    """The line that a reload writes."""
    caplog.clear()
    reloader.asked.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not caplog.messages:  # noqa: ASYNC110  # a log has no event
            await asyncio.sleep(0.005)
    [line] = caplog.messages
    return line


@dataclass
class Waiting(ScriptedUpstream):
    """Says nothing behind the third word until it may."""

    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def _before(self, number: int, request: web.Request) -> None:
        if number == 4:
            await self.goes_on.wait()


async def test_a_running_answer_keeps_the_policy_with_which_it_began(caplog: pytest.LogCaptureFixture) -> None:
    upstream = Waiting(answer(WORDS))
    guard = ScriptedGuard(lambda _: CONTROVERSIAL)
    async with upstream.running():
        values = {**PATIENT, "server.port": 0, "upstream.base_url": upstream.url, "policy.name": "first"}
        strict = load_settings(None, values | {"policy.mode": "strict", "policy.name": "second"}, {})
        reloader = Reloader(lambda: strict, load_settings(None, values, {}))
        settings = load_settings(None, values, {})
        async with (
            running(settings, guard, lambda app: reloader.attach(app[CURRENT])) as port,
            reloading(reloader),
        ):
            url = f"http://127.0.0.1:{port}"
            async with connected(url) as client:
                await client.send(http_request(stream=True))
                await client.read_until(b" two")
                line = await asked(reloader, caplog)
                upstream.goes_on.set()
                old = await client.reply()
            new = await ask(url, stream=True)
    assert line == "settings reloaded: [policy] mode, [policy] name changed"
    assert old.headers["x-weir-policy"] == "first"
    assert (read(old.body).content, read(old.body).finish) == (TEXT, {0: "stop"})
    assert new.headers["x-weir-policy"] == "second"
    assert read(new.body).finish == {0: "content_filter"}


async def test_what_is_reloaded_holds_for_those_who_come_and_for_nobody_who_is_there() -> None:
    """Keys, limits and the upstream change under an answer that runs."""
    old, new = Waiting(answer(WORDS)), ScriptedUpstream(answer(["a", " b"]))
    app: list[web.Application] = []
    async with old.running(), new.running():

        def settings_with(url: str, *keys: dict[str, Any], streams: int = 9) -> Settings:
            values = {**PATIENT, "server.port": 0, "upstream.base_url": url, "upstream.api_key": "sk-o"}
            return load_settings(None, values | {"auth.keys": list(keys), "server.max_streams": streams}, {})

        alice, bob = ({"name": name, "sha256": digest_of(f"weir-{name}")} for name in ("alice", "bob"))
        settings = settings_with(old.url, alice, bob)
        async with running(settings, ScriptedGuard(), app.append) as port:
            current, url = app[0][CURRENT], f"http://127.0.0.1:{port}"

            async def asked_by(name: str) -> Reply:
                return await ask(url, http_request(stream=True, headers={"x-api-key": f"weir-{name}"}))

            async with connected(url) as client:
                await client.send(http_request(stream=True, headers={"x-api-key": "weir-bob"}))
                await client.read_until(b" two")
                changed = settings_with(new.url, alice | {"max_streams": 1}, streams=1)
                current.adopt(changed)
                assert (await asked_by("alice")).error["code"] == "overloaded"
                current.adopt(settings_with(new.url, alice | {"max_streams": 1}))
                assert (await asked_by("bob")).status == 401
                assert read((await asked_by("alice")).body).content == "a b"
                old.goes_on.set()
                assert read((await client.reply()).body).content == TEXT
            current.adopt(settings_with(new.url, alice | {"requests_per_minute": 1}))
            assert (await asked_by("alice")).status == 200
            assert (await asked_by("alice")).error["limit"] == "requests_per_minute"
    assert len(old.requests) == 1


async def test_what_cannot_be_used_leaves_the_last_good_ones(caplog: pytest.LogCaptureFixture) -> None:
    upstream = {"base_url": "http://a", "api_key": "sk-ours"}
    keys = [{"name": "a", "sha256": "0" * 64}]
    public = Settings.model_validate({"server": {"host": "::"}, "auth": {"keys": keys}, "upstream": upstream})

    async def line_of(found: Settings | Exception) -> str:
        def read_again() -> Settings:
            if isinstance(found, Exception):
                raise found
            return found

        reloader = Reloader(read_again, public)
        async with reloading(reloader):
            return await asked(reloader, caplog)

    kept = "settings not reloaded, the last good ones stay: "
    assert await line_of(ConfigError("a.\nb.")) == f"{kept}a. b."
    assert (await line_of(ValueError("canary"))).startswith(f"{kept}internal: ValueError at test_reload.py")
    assert caplog.records[-1].levelno == logging.ERROR
    # What is right for the address in the file may be wrong for the one that is listened on.
    found = Settings.model_validate({"upstream": upstream})
    assert "there are no keys: whoever finds the port" in await line_of(found)
    found = Settings.model_validate({"upstream": {}, "auth": {"keys": keys}})
    assert "weir serve needs an upstream" in await line_of(found)


async def test_k4_a_signal_has_the_file_read_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    """A server of its own, five files one after another, and a signal behind each."""
    file = tmp_path / "weir.toml"
    upstream = ScriptedUpstream(answer(WORDS))
    async with asyncio.timeout(6 * PATIENCE_SECONDS), upstream.running(), scripted_guard() as guard:
        good = f'[upstream]\nbase_url = "{upstream.url}"\n[server]\nport = 0\n[policy]\nname = "NAME"\n'
        file.write_text(good.replace("NAME", "first"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", "--config", str(file)),
            env=environment(WEIR_UPSTREAM__API_KEY="sk-canary", **guard),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None

        async def line_with(words: str) -> str:
            assert process.stderr is not None
            while words not in (line := (await process.stderr.readline()).decode()):
                assert line, f"it ended without a word of {words}"
            return line.replace(f"{tmp_path}/", "").strip()

        url = (await line_with("http://")).split()[2].removesuffix("/v1")

        async def after(text: str) -> tuple[str, str]:
            file.write_text(text)
            process.send_signal(signal.SIGHUP)
            line = await line_with("settings")
            return line, (await ask(url, stream=True)).headers["x-weir-policy"]

        assert await after(good.replace("NAME", "second")) == (
            "settings reloaded: [policy] name changed", "second",
        )  # fmt: skip
        bad = "settings not reloaded, the last good ones stay: weir.toml line 6: "
        line, policy = await after(good.replace('"NAME"', "5 5"))
        assert (line.startswith(bad.removesuffix(": ") + ", column"), policy) == (True, "second")
        line, policy = await after(good.replace("name", "mode"))
        assert (line.startswith(f"{bad}[policy] mode must be"), policy) == (True, "second")
        line, policy = await after(good.replace("NAME", "third").replace("port = 0", "port = 1"))
        assert line == "settings reloaded: [policy] name changed; [server] port changed too, and need a restart"
        assert policy == "third"
        file.unlink()
        process.send_signal(signal.SIGHUP)
        assert "weir.toml: cannot be read" in await line_with("settings")
        process.send_signal(signal.SIGTERM)
        rest = (await process.stderr.read()).decode()
        assert await process.wait() == 0
    assert "canary" not in rest
    assert "Traceback" not in rest
