"""Settings that are read again: what changes, what waits for a restart, and what a bad file does not break."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from proxy.app import has_terminal, running
from proxy.config import ConfigError, load_settings
from proxy.handlers import SERVICE
from proxy.reload import Reloader, differences, live_settings, told
from proxy.settings import Settings, UpstreamSettings
from tests.driver import WORDS, answer, read
from tests.fakes import CONTROVERSIAL, ScriptedGuard, ScriptedUpstream
from tests.reliability.environment import ROOT, environment
from tests.sockets import ask, connected, http_request

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
        [upstream]
        api_key = "sk-canary"
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
    assert (live.server, live.upstream, live.log.file) == (now.server, now.upstream, None)
    assert told(now, live, found) == (
        "[policy] mode, [policy] categories.PII, [policies] old, [policies] new, [[rules]], [annotations] weir, "
        "[log] level changed; [server] port, [upstream] api_key, [log] file changed too, and need a restart"
    )
    assert told(now, now, now) == "nothing changed"


def test_a_secret_is_told_by_its_key_alone() -> None:
    one, other = (Settings(upstream=UpstreamSettings(api_key=SecretStr(f"sk-canary{n}"))) for n in (1, 2))
    assert list(differences(one, other)) == [("upstream", "api_key")]
    assert "canary" not in told(one, one, other)


@asynccontextmanager
async def reloading(reloader: Reloader) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reloader.run())
        yield
        task.cancel()


async def asked(reloader: Reloader, caplog: pytest.LogCaptureFixture) -> str:
    """The line that a reload writes."""
    caplog.clear()
    reloader.asked.set()
    async with asyncio.timeout(5):
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
        values = {"server.port": 0, "upstream.base_url": upstream.url, "policy.name": "first"}
        strict = load_settings(None, values | {"policy.mode": "strict", "policy.name": "second"}, {})
        reloader = Reloader(lambda: strict, load_settings(None, values, {}))
        settings = load_settings(None, values, {})
        async with (
            running(settings, guard, lambda app: reloader.attach(app[SERVICE])) as port,
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


async def test_what_cannot_be_used_leaves_the_last_good_ones(caplog: pytest.LogCaptureFixture) -> None:
    async def line_of(found: Settings | Exception) -> str:
        def read_again() -> Settings:
            if isinstance(found, Exception):
                raise found
            return found

        reloader = Reloader(read_again, Settings())
        async with reloading(reloader):
            return await asked(reloader, caplog)

    kept = "settings not reloaded, the last good ones stay: "
    assert await line_of(ConfigError("a.\nb.")) == f"{kept}a. b."
    assert (await line_of(ValueError("canary"))).startswith(f"{kept}internal: ValueError at test_reload.py")
    assert caplog.records[-1].levelno == logging.ERROR
    several = {"a": UpstreamSettings(name="a", base_url="http://a")}
    rules = [{"policy": "default", "upstreams": ["a"]}]
    found = Settings.model_validate({"upstream_tables": several, "rules": rules})
    assert await line_of(found) == f'{kept}[[rules]] upstreams names no upstream, "a"; there are default.'


async def test_k4_a_signal_has_the_file_read_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    """A server of its own, five files one after another, and a signal behind each."""
    file = tmp_path / "weir.toml"
    upstream = ScriptedUpstream(answer(WORDS))
    async with asyncio.timeout(60), upstream.running():
        good = f'[upstream]\nbase_url = "{upstream.url}"\n[server]\nport = 0\n[policy]\nname = "NAME"\n'
        file.write_text(good.replace("NAME", "first"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", "--config", str(file)),
            env=environment(WEIR_GUARD__PROCESS="false", WEIR_UPSTREAM__API_KEY="sk-canary"),
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


def test_a_terminal_is_there_or_not() -> None:
    assert has_terminal() in (True, False)
