"""`weir serve`: what it says, when it listens, how it ends."""

import asyncio
import errno
import os
import signal
import sys

import pytest
from pydantic import SecretStr

from proxy.admin import CannotListen
from proxy.config import load_settings
from proxy.serving import has_terminal, problem_of, serve, started
from proxy.settings import Settings, UpstreamSettings
from tests.crews import scripted_guard
from tests.fakes import ScriptedGuard
from tests.reliability.environment import ROOT, environment
from tests.sockets import PATIENCE_SECONDS
from tests.test_app import settings_of


def test_more_policies_are_said_at_the_start() -> None:
    rules = [{"policy": "kids", "models": ["m"]}]
    settings = settings_of(policies__kids__mode="strict", rules=rules)
    assert "policy default: loose, block, hold; 1 more by 1 rule\n" in f"{started(settings, ScriptedGuard(), 1)}\n"


async def test_a_server_ends_with_its_terminal_and_not_at_a_signal_alone() -> None:
    master, slave = os.openpty()
    serve_it = (sys.executable, "-m", "proxy", "serve", "--upstream", "http://127.0.0.1:9", "--port", "0")
    async with asyncio.timeout(5 * PATIENCE_SECONDS), scripted_guard() as guard:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f'exec "$0" "$@" 0<>{os.ttyname(slave)}', *serve_it),  # which makes it the terminal
            env=environment(**guard),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        os.close(slave)
        assert process.stderr is not None
        while b"guard scripted" not in (line := await process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGHUP)
        while b"settings reloaded: nothing changed" not in (line := await process.stderr.readline()):
            assert line
        os.close(master)
        assert await process.wait() == 0


def test_what_is_risky_is_said_at_the_start() -> None:
    quiet = started(settings_of(guard__model="hub/model"), ScriptedGuard(), 8080)
    assert "http://127.0.0.1:8080/v1" in quiet
    assert "WARNING" not in quiet
    embedded = ScriptedGuard(name="embedded")
    assert "demo grade" in started(settings_of(guard__address="unix:/run/weir/guard.sock"), embedded, 1)
    assert "others can reach" in started(settings_of(server__host="::"), embedded, 1)
    assert "pass unjudged" in started(settings_of(guard__on_failure="open"), ScriptedGuard(), 1)


def test_the_start_names_the_upstreams_and_what_each_serves() -> None:
    assert "/v1 -> http://127.0.0.1:1\n" in started(settings_of(), ScriptedGuard(), 8080)
    tables = {
        "a": UpstreamSettings(
            name="claude", base_url="http://c/v1", models=("claude-*", "x"), api_key=SecretStr("canary")
        ),
        "b": UpstreamSettings(name="rest", base_url="http://r/v1"),
    }
    said = started(Settings(upstream_tables=tables), ScriptedGuard(), 8080).splitlines()
    assert said[:3] == [
        "weir 0.1.0: http://127.0.0.1:8080/v1",
        "  claude-*, x -> claude, http://c/v1",
        "  all other models -> rest, http://r/v1",
    ]
    assert "canary" not in str(said)


def test_without_an_upstream_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(load_settings(environ={}), Settings) == 2
    assert "upstream" in capsys.readouterr().err


def test_a_server_that_others_can_reach_does_not_start_without_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(settings_of(server__host="0.0.0.0"), Settings) == 2
    assert "weir key new NAME" in capsys.readouterr().err


def test_a_port_in_use_is_a_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise OSError(errno.EADDRINUSE, "in use")

    monkeypatch.setattr("proxy.serving.serve_until_stopped", fail)
    assert serve(settings_of(server__port=8080), Settings) == 1
    assert "Port 8080 of 127.0.0.1 is in use" in capsys.readouterr().err


def test_the_operators_port_in_use_is_another_sentence() -> None:
    problem = problem_of(settings_of(server__port=8080), CannotListen("Port 9464 of ::1, [admin] port, is in use."))
    assert (str(problem), problem.status) == ("Port 9464 of ::1, [admin] port, is in use.", 1)


def test_a_terminal_is_there_or_not() -> None:
    assert has_terminal() in (True, False)
