"""The guard's process as an operator runs it: addresses, sockets that were left behind, signals."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from proxy.guard.process import Config, Report
from proxy.guard.settings import GuardSettings
from proxy.guard.supervisor import Supervisor, is_on_gpu
from proxy.guard.wire import VERSION, FrameDecoder, Hello, Refusal, Welcome, decode_greeting, encode, frame
from tests.crews import children, is_alive
from tests.guard.checkpoints import small_checkpoint
from tests.sockets import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_checkpoint(tmp_path_factory.mktemp("guard") / "small"))


def failure_of(config: Config) -> str:
    reports: list[Report] = []
    assert Supervisor(config, reports.append, None).run() == 1
    (report,) = reports
    return report.error


def greeting_of(sock: socket.socket, token: str = "") -> Welcome | Refusal:
    with sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.sendall(frame(encode(Hello(VERSION, 1, token))))
        decoder = FrameDecoder()
        while not (bodies := decoder.feed(sock.recv(4096))):
            pass
        return decode_greeting(bodies[0])


def started(config: Config) -> tuple[subprocess.Popen[bytes], Report]:
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy.guard.supervisor"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(config) + b"\n")
    process.stdin.flush()
    return process, msgspec.json.decode(process.stdout.readline(), type=Report)


def ended(process: subprocess.Popen[bytes]) -> int:
    with process:
        return process.wait(3 * PATIENCE_SECONDS)


def test_a_tcp_address_without_a_token_is_refused(folder: str) -> None:
    assert "needs a token" in failure_of(Config(folder, GuardSettings(), host="127.0.0.1"))


def test_what_cannot_be_loaded_or_listened_at_is_said(folder: str, tmp_path: Path) -> None:
    assert "no such folder" in failure_of(Config(str(tmp_path / "none"), GuardSettings(), path=str(tmp_path / "a")))
    assert "No such file" in failure_of(Config(folder, GuardSettings(), path=str(tmp_path / "none" / "a")))
    (tmp_path / "file").write_text("not a socket")
    assert "in use" in failure_of(Config(folder, GuardSettings(), path=str(tmp_path / "file")))
    assert (tmp_path / "file").read_text() == "not a socket"


def test_a_socket_at_which_somebody_listens_is_not_taken_over(folder: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert "in use" in failure_of(Config(folder, GuardSettings(), path=str(tmp_path / "s")))
        assert (tmp_path / "s").exists()


def test_it_serves_both_kinds_of_address_and_ends_with_its_standard_input(folder: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # as one that was killed leaves it
    process, report = started(Config(folder, GuardSettings(threads=1), path=str(path), host="127.0.0.1", token="key"))
    assert report.error == ""
    assert path.stat().st_mode & 0o777 == 0o600
    unix = socket.socket(socket.AF_UNIX)
    unix.connect(str(path))
    assert isinstance(greeting_of(unix), Welcome)
    assert isinstance(greeting_of(socket.create_connection(("127.0.0.1", report.port)), "key"), Welcome)
    assert isinstance(greeting_of(socket.create_connection(("127.0.0.1", report.port)), "kex"), Refusal)
    assert process.stdin is not None
    process.stdin.close()
    assert ended(process) == 0
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_engine(folder: str, tmp_path: Path, number: int) -> None:
    process, _ = started(Config(folder, GuardSettings(threads=1), path=str(tmp_path / "s")))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (engines := children(process.pid)):
        assert time.monotonic() < deadline
    process.send_signal(number)
    process.send_signal(number)
    assert ended(process) == 0
    assert not any(is_alive(engine) for engine in engines), "it waits for its engine"
    assert not (tmp_path / "s").exists()


def test_a_cpu_is_no_gpu() -> None:
    assert not is_on_gpu("cpu")
    assert is_on_gpu("cuda:1")
