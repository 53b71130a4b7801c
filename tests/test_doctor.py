"""Each finding says what is, and what to do when it is not well."""

import io
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from pydantic import SecretStr
from rich.console import Console

from proxy.config import ConfigError
from proxy.doctor import (
    UNSAFE_CANARY,
    Finding,
    Status,
    about_canaries,
    about_guard,
    about_pins,
    about_settings,
    about_upstream,
    examine,
    explain,
    installation,
    report,
    run,
)
from proxy.errors import BrokenAnswer
from proxy.guard.protocol import GuardTimeout
from proxy.policy_settings import PolicySettings
from proxy.record_settings import RecordSettings
from proxy.server_settings import ServerSettings
from proxy.settings import Dialect, GuardSettings, Settings, UpstreamSettings
from proxy.upstream_pool import ConnectTimeout
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, all_safe, words
from tests.guard.checkpoints import small_checkpoint

MODELS = json.dumps({"object": "list", "data": [{"id": "a"}, {"id": "b"}]}).encode()
QWEN_VOCABULARY = 151936


def upstream_settings(url: str, key: str | None = None, first_byte_seconds: float = 60.0) -> UpstreamSettings:
    secret = SecretStr(key) if key else None
    return UpstreamSettings(base_url=url, api_key=secret, first_byte_seconds=first_byte_seconds)


async def ask(
    *, status: int = 200, body: bytes = MODELS, key: str | None = None, environ: dict[str, str] | None = None
) -> tuple[Finding, ScriptedUpstream]:
    upstream = ScriptedUpstream([body], status=status, content_type="application/json")
    async with upstream.running():
        return await about_upstream(upstream_settings(upstream.url, key), environ or {}), upstream


def test_the_installation_is_named() -> None:
    found = {finding.subject: finding for finding in installation()}
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert "C parser" in found["aiohttp"].said
    assert found["torch"].said[0].isdigit()


async def test_an_upstream_that_lists_its_models_is_well() -> None:
    finding, upstream = await ask(key="sk-canary")
    assert (finding.status, finding.todo) == (Status.OK, "")
    assert "lists 2 models" in finding.said
    [request] = upstream.requests
    assert (request["method"], request["path"]) == ("GET", "/v1/models")
    assert request["headers"]["authorization"] == "Bearer sk-canary"
    assert "canary" not in finding.said


async def test_a_key_of_the_shell_is_used_to_look_only_where_none_is_set() -> None:
    _, upstream = await ask(environ={"OPENAI_API_KEY": "sk-shell"})
    assert upstream.requests[0]["headers"]["authorization"] == "Bearer sk-shell"
    _, upstream = await ask(key="sk-set", environ={"OPENAI_API_KEY": "sk-shell"})
    assert upstream.requests[0]["headers"]["authorization"] == "Bearer sk-set"


@pytest.mark.parametrize(
    ("dialect", "variable", "header", "body"),
    [
        ("anthropic", "ANTHROPIC_API_KEY", "x-api-key", b'{"data":[{"id":"a"}]}'),
        (
            "gemini",
            "GEMINI_API_KEY",
            "x-goog-api-key",
            b'{"models":[{"name":"models/g","supportedGenerationMethods":["generateContent"]}]}',
        ),
    ],
)
async def test_upstreams_of_other_dialects_are_asked_in_their_own_way(
    dialect: Dialect, variable: str, header: str, body: bytes
) -> None:
    upstream = ScriptedUpstream([body], content_type="application/json")
    async with upstream.running():
        settings = upstream_settings(upstream.url).model_copy(update={"dialect": dialect})
        finding = await about_upstream(settings, {variable: "sk-shell", "OPENAI_API_KEY": "sk-other"})
    assert "lists 1 model" in finding.said
    assert upstream.requests[0]["headers"][header] == "sk-shell"
    assert "sk-other" not in str(upstream.requests[0]["headers"])


@pytest.mark.parametrize(
    ("status", "key", "finding_status", "said", "todo"),
    [
        (401, None, Status.WARN, "asks for an API key", "WEIR_UPSTREAM__API_KEY"),
        (401, "sk-x", Status.FAIL, "refuses the API key", "Check the key"),
        (403, "sk-x", Status.FAIL, "refuses the API key", "Check the key"),
        (404, None, Status.WARN, "has no /models", "base URL"),
        (500, None, Status.FAIL, "answers with status 500", "log"),
        (302, None, Status.FAIL, "cannot be used", "OpenAI-compatible"),
    ],
)
async def test_a_status_is_explained(
    status: int, key: str | None, finding_status: Status, said: str, todo: str
) -> None:
    finding, _ = await ask(status=status, key=key)
    assert finding.status is finding_status
    assert said in finding.said
    assert todo in finding.todo


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"data":1}', b"\xff", b"[" * 100_000])
async def test_an_answer_that_is_no_list_of_models_is_a_failure(body: bytes) -> None:
    finding, _ = await ask(body=body)
    assert finding.status is Status.FAIL
    assert "not with a list of models" in finding.said


async def test_no_upstream_and_one_that_is_not_there() -> None:
    finding = await about_upstream(UpstreamSettings(), {})
    assert finding.status is Status.FAIL
    assert "--upstream" in finding.todo
    finding = await about_upstream(upstream_settings("http://127.0.0.1:9/v1"), {})
    assert finding.status is Status.FAIL
    assert "cannot be connected to (connection refused)" in finding.said


async def test_an_upstream_that_does_not_speak_tls_is_told_apart() -> None:
    upstream = ScriptedUpstream()
    async with upstream.running():
        finding = await about_upstream(upstream_settings(upstream.url.replace("http:", "https:")), {})
    assert finding.status is Status.FAIL
    assert "does not speak TLS" in finding.said
    assert "http://" in finding.todo


async def test_an_upstream_that_says_nothing_is_given_up() -> None:
    upstream = ScriptedUpstream(first_byte_delay=3600)
    async with upstream.running():
        finding = await about_upstream(upstream_settings(upstream.url, first_byte_seconds=0.5), {})
    assert finding.status is Status.FAIL
    assert "does not answer" in finding.said


async def test_each_of_several_upstreams_is_looked_at_by_its_name(tmp_path: Path) -> None:
    well, asking = (ScriptedUpstream([MODELS], status=status, content_type="application/json") for status in (200, 401))
    async with well.running(), asking.running():
        tables = {
            "a": UpstreamSettings(name="well", base_url=well.url, api_key=SecretStr("sk-canary")),
            "b": UpstreamSettings(name="Asking-1", base_url=asking.url, models=("x",)),
            "c": UpstreamSettings(name="gone", base_url="http://127.0.0.1:9", models=("y",)),
        }
        settings = Settings(upstream_tables=tables, guard=GuardSettings(model=str(tmp_path / "none")))
        environ = {"OPENAI_API_KEY": "sk-shell"}
        found = [one async for one in examine(lambda: settings, environ) if one.subject == "upstream"]
    assert [finding.status for finding in found] == [Status.OK, Status.WARN, Status.FAIL]
    assert [finding.said.partition(":")[0] for finding in found] == ["well", "Asking-1", "gone"]
    assert "WEIR_UPSTREAM__ASKING_1__API_KEY" in found[1].todo
    assert "authorization" not in asking.requests[0]["headers"]
    assert "canary" not in str(found)


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (ssl.SSLCertVerificationError("x"), "a certificate that is not trusted"),
        (ssl.SSLError("x"), "does not speak TLS"),
        (TimeoutError(), "does not answer in time"),
        (ConnectTimeout(), "does not answer in time"),
        (socket.gaierror(), "does not resolve"),
        (ConnectionRefusedError(111, "x"), "cannot be connected to (connection refused)"),
        (BrokenAnswer("x"), "cannot be used (x)"),
    ],
)
def test_failures_have_words(exc: Exception, said: str) -> None:
    assert said in explain(exc)[0]


def test_risky_settings_are_warned_of() -> None:
    risky = Settings(server=ServerSettings(host="0.0.0.0"), guard=GuardSettings(on_failure="open"))
    warned = [finding.said for finding in about_settings(risky) if finding.status is Status.WARN]
    assert warned == [
        "while the guard fails, answers pass unjudged",
        "the embedded guard is demo grade, and others can reach this server",
    ]
    assert [finding.subject for finding in about_settings(risky) if finding.status is Status.FAIL] == ["keys"]
    assert [finding.status for finding in about_settings(Settings(guard=GuardSettings(model="a/b")))] == [Status.OK]


@pytest.mark.parametrize(
    ("guard", "status"),
    [
        (ScriptedGuard(words("bomb")), Status.OK),
        (ScriptedGuard(all_safe), Status.FAIL),
        (ScriptedGuard(prompt_level=UNSAFE), Status.WARN),
        (ScriptedGuard(fails_after=0, error=GuardTimeout("late")), Status.FAIL),
    ],
)
async def test_canaries_are_real_verdicts(guard: ScriptedGuard, status: Status) -> None:
    finding = await about_canaries(guard, Settings(policy=PolicySettings(debounce=1)))
    assert finding.status is status
    assert bool(finding.todo) is (status is not Status.OK)
    assert guard.slots == 0


def test_the_unsafe_canary_ends_with_an_answer() -> None:
    assert UNSAFE_CANARY[-1]["role"] == "assistant"


async def test_a_guard_is_loaded_and_closed(tmp_path: Path) -> None:
    checkpoint = small_checkpoint(tmp_path / "small", vocab_size=QWEN_VOCABULARY)
    settings = Settings(guard=GuardSettings(model=str(checkpoint), device="cpu", threads=1))
    loaded, files, canaries = [finding async for finding in about_guard(settings)]
    assert loaded.status is Status.OK
    assert "small@" in loaded.said
    assert (files.status, files.subject) == (Status.WARN, "files")
    assert "sha256sum config.json" in files.todo
    assert canaries.subject == "verdicts"


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        (GuardSettings(), "nothing to pin"),
        (GuardSettings(model="folder", sha256={"config.json": "0" * 64}), "1 of the guard's have the SHA-256"),
        (GuardSettings(model="folder", address="unix:/run/guard.sock"), "pin them there"),
    ],
)
def test_a_guard_is_said_to_be_pinned_or_to_have_nothing_to_pin(guard: GuardSettings, said: str) -> None:
    finding = about_pins(guard)
    assert (finding.status, finding.todo) == (Status.OK, "")
    assert said in finding.said


async def test_a_guard_that_cannot_be_loaded_is_a_failure(tmp_path: Path) -> None:
    settings = Settings(guard=GuardSettings(model=str(tmp_path / "none")))
    [finding] = [finding async for finding in about_guard(settings)]
    assert finding.status is Status.FAIL
    assert "no such folder" in finding.said


def broken() -> Settings:
    raise ConfigError("weir.toml line 2: first.\nweir.toml line 3: second.")


async def test_records_are_looked_at_where_they_are_kept(tmp_path: Path) -> None:
    async def found(settings: Settings) -> list[Finding]:
        kept = []
        async with aclosing(examine(lambda: settings, {})) as examined:
            async for finding in examined:
                if finding.subject == "upstream":  # what comes behind it takes long
                    break
                kept.append(finding)
        return [finding for finding in kept if finding.subject == "records"]

    assert await found(Settings()) == []
    [well] = await found(Settings(records=RecordSettings(file=tmp_path / "records.db")))
    assert (well.status, well.todo) == (Status.OK, "")
    [ill] = await found(Settings(records=RecordSettings(file=tmp_path / "nowhere" / "records.db")))
    assert ill.status is Status.FAIL
    assert "there is no folder" in ill.said


async def test_broken_settings_end_the_examination() -> None:
    findings = [finding async for finding in examine(broken, {}) if finding.subject == "settings"]
    assert [finding.said for finding in findings] == ["weir.toml line 2: first.", "weir.toml line 3: second."]


def unusable(tmp_path: Path) -> Callable[[], Settings]:
    return lambda: Settings(guard=GuardSettings(model=str(tmp_path / "none")))


async def test_the_report_has_a_line_for_each_finding(tmp_path: Path) -> None:
    out = io.StringIO()
    assert await report(examine(unusable(tmp_path), {}), Console(file=out, soft_wrap=True)) == 1
    lines = out.getvalue().splitlines()
    assert [line[:4].strip() for line in lines[:4]] == ["ok"] * 4
    assert any(line.startswith("fail  upstream  no upstream is set") for line in lines)
    assert any(line.startswith("fail  guard ") for line in lines)
    assert sum("-> " in line for line in lines) == 2
    assert lines[-1] == "Weir cannot serve like this: see above."


async def test_without_a_failure_the_report_ends_well() -> None:
    async def findings() -> AsyncIterator[Finding]:
        yield Finding(Status.OK, "a", "is well")
        yield Finding(Status.WARN, "b", "is so-so", "Look at it.")

    out = io.StringIO()
    assert await report(findings(), Console(file=out, soft_wrap=True)) == 0
    assert out.getvalue().splitlines() == [
        "ok    a         is well",
        "warn  b         is so-so",
        "                -> Look at it.",
        "Weir can serve.",
    ]


def test_the_exit_status_tells_whether_anything_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(broken, {}) == 1
    assert "second." in capsys.readouterr().out
