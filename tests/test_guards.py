import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from proxy.config import ConfigError, load_settings
from proxy.guard.answer import classify
from proxy.guard.client import Address
from proxy.guard.fleet import FleetGuard
from proxy.guard.process import ProcessGuard, RemoteGuard
from proxy.guard.protocol import GuardUnavailable
from proxy.guard.remote_code import RemoteCodeGuard
from proxy.guard.service import LocalGuard
from proxy.guards import address_of, engine_settings, open_guard, serve_guard
from proxy.settings import GuardSettings, Settings
from tests.guard.checkpoints import small_checkpoint
from tests.guard.conformance import Text, modules_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_checkpoint(tmp_path_factory.mktemp("guard") / "small"))


def settings_of(folder: str, **guard: object) -> Settings:
    return Settings(guard=GuardSettings(model=folder, threads=1, device="cpu", **guard))  # type: ignore[arg-type]


async def test_a_guard_runs_where_the_settings_say(folder: str) -> None:
    for settings, may_fork, kind in (
        (settings_of(folder), True, ProcessGuard),
        (settings_of(folder), False, LocalGuard),
        (settings_of(folder, process=False), True, LocalGuard),
    ):
        guard = await open_guard(settings, may_fork=may_fork)
        assert type(guard) is kind
        assert (await guard.health()).is_ready
        await guard.close()


async def test_the_models_own_code_runs_where_it_is_trusted(tmp_path: Path) -> None:
    text = Text(tmp_path / "small")
    settings = settings_of(str(text.folder), backend="remote-code", trust_remote_code=True)
    with modules_in(tmp_path):
        guard = await open_guard(settings)
    assert isinstance(guard, RemoteCodeGuard)
    await guard.close()


async def test_a_server_of_sglang_is_asked_where_it_is() -> None:
    settings = settings_of("x", backend="sglang", sglang_url="http://127.0.0.1:9", window=1000)
    with pytest.raises(GuardUnavailable, match="no SGLang server answers at http://127"):
        await open_guard(settings)


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
async def test_a_fleet_without_ray_is_told_with_the_command() -> None:
    with pytest.raises(GuardUnavailable, match=r'pip install "weir-proxy\[ray\]"'):
        await open_guard(settings_of("x", backend="ray"))


async def test_a_backend_that_is_not_installed_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "proxy.guard.remote_code", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(GuardUnavailable, match=r'pip install "weir-proxy\[remote-code\]"'):
        await open_guard(settings_of("x", backend="remote-code", trust_remote_code=True))


def serving(folder: str, address: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "proxy", "guard", "serve", "--guard-address", address, "--guard", folder]
    return subprocess.Popen([*command, "--threads", "1"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


async def test_a_guard_that_is_served_is_shared_and_outlives_its_proxies(folder: str, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's'}"
    with serving(folder, address) as process:
        assert process.stderr is not None
        assert b"ready at unix:" in process.stderr.readline()
        for _ in range(2):
            guard = await open_guard(settings_of("never/loaded", address=address))
            assert type(guard) is RemoteGuard
            assert guard.info.model == "small"
            await guard.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


async def test_several_guards_that_are_served_are_one(folder: str, tmp_path: Path) -> None:
    addresses = [f"unix:{tmp_path / name}" for name in ("a", "b")]
    with serving(folder, addresses[0]) as process:
        assert process.stderr is not None
        assert b"ready at unix:" in process.stderr.readline()
        guard = await open_guard(settings_of("never/loaded", replicas=addresses))
        assert isinstance(guard, FleetGuard)
        stream, _ = await guard.open([1, 2, 3])
        assert len(await classify(stream, 3, [4])) == 1
        await guard.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
async def test_vllm_where_it_is_not_installed_is_told_with_the_command(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GuardUnavailable, match=r'pip install "weir-proxy\[vllm\]"'):
        await open_guard(settings_of(folder, backend="vllm"))
    monkeypatch.setenv("WEIR_GUARD__BACKEND", "vllm")
    with serving(folder, f"unix:{tmp_path / 's'}") as process:
        assert process.stderr is not None
        assert b'cannot be started: guard.backend = "vllm" needs vllm' in process.stderr.read()
        assert process.wait(10) == 1


async def test_nobody_at_the_address_is_said(tmp_path: Path) -> None:
    with pytest.raises(GuardUnavailable, match="no guard engine answers at unix:"):
        await open_guard(
            settings_of("x", address=f"unix:{tmp_path / 'none'}", admission_seconds=0.1, verdict_seconds=0.1)
        )


@pytest.mark.parametrize(
    ("guard", "reason"),
    [
        ({}, "needs --guard-address"),
        ({"address": "tcp://127.0.0.1:9400"}, "needs a token"),
        ({"backend": "remote-code"}, 'is for backend = "local" or "vllm", not "remote-code"'),
    ],
)
def test_a_guard_that_cannot_be_served_says_why(
    guard: dict[str, str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve_guard(Settings(guard=GuardSettings(**guard))) == 2  # type: ignore[arg-type]
    assert reason in capsys.readouterr().err


def test_addresses_are_read() -> None:
    assert address_of("unix:/run/weir/guard.sock") == Address(path="/run/weir/guard.sock")
    assert address_of("tcp://guard.internal:9400") == Address(host="guard.internal", port=9400)
    assert address_of("tcp://[::1]:9400") == Address(host="::1", port=9400)


@pytest.mark.parametrize("address", ["", "unix:", "/run/s", "tcp://host", "http://h:1", "tcp://h:x", "tcp://:1"])
def test_other_addresses_are_refused_with_a_sentence(address: str) -> None:
    with pytest.raises(ConfigError, match="must be unix:PATH or tcp://HOST:PORT"):
        load_settings(overrides={"guard.address": address}, environ={})


def test_a_token_is_never_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"WEIR_GUARD__TOKEN": "", "WEIR_GUARD__WINDOW": "x"})
    assert "WEIR_GUARD__WINDOW" in str(caught.value)
    assert "secret" not in repr(load_settings(environ={"WEIR_GUARD__TOKEN": "secret"}))


def test_every_deadline_of_the_settings_reaches_the_engine() -> None:
    found = engine_settings(
        GuardSettings(verdict_seconds=3, admission_seconds=4, hang_seconds=5, threads=2, kv_share=0.5)
    )
    assert found.kv_share == 0.5
    assert (found.limits.admission_seconds, found.limits.kept_tokens) == (4, 0)
    assert (found.verdict_seconds, found.open_seconds, found.hang_seconds, found.threads) == (3, 7, 5, 2)
