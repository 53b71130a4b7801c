"""The command as a shell runs it: exit status, what goes to which stream, and no trace of Python."""

import contextlib
import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from proxy import __version__
from proxy.cli import KEYS, main
from proxy.config import FLAGS
from tests.guard.checkpoints import small_checkpoint
from tests.sockets import PATIENCE_SECONDS, free_port

ROOT = Path(__file__).parent.parent
QWEN_VOCABULARY = 151936
CONVERSATION = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]}


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags that name a small guard with random weights."""
    folder = small_checkpoint(tmp_path_factory.mktemp("guards") / "small", vocab_size=QWEN_VOCABULARY)
    return ["--guard", str(folder), "--device", "cpu", "--threads", "1"]


@pytest.fixture(autouse=True)
def _no_settings_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WEIR_")]:
        monkeypatch.delenv(name)


def weir(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE_SECONDS,
        check=False,
    )


def test_help_is_quick_and_shows_commands_and_exit_statuses() -> None:
    done = weir("--help")
    assert done.returncode == 0
    for word in (
        "serve",
        "moderate",
        "doctor",
        "demo",
        "examples:",
        "  weir init",
        "exit status:",
        "  3  ",
        "NO_COLOR",
    ):
        assert word in done.stdout


def test_a_file_of_init_is_read_by_the_next_command() -> None:
    done = weir("init")
    assert (done.returncode, done.stderr) == (0, "")
    assert "weir.toml is written. Set base_url in its [upstream], then: weir doctor\n" in done.stdout
    assert weir("init").returncode == 1
    file = Path("weir.toml")
    printed = weir("init", "-")
    assert (printed.returncode, printed.stdout) == (0, file.read_text())
    assert weir("serve").stderr.startswith("weir serve needs an upstream")
    file.write_text(file.read_text().replace("#base_url =", "base_url = 5", 1))
    assert "[upstream] base_url must be" in weir("serve").stderr


@pytest.mark.parametrize(("surroundings", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(surroundings: dict[str, str], has_colours: bool) -> None:
    arguments = [sys.executable, "-m", "proxy", "doctor", "--mode", "strct"]
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environ = plain | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | surroundings
    piped = subprocess.run(
        arguments, env=environ, capture_output=True, text=True, timeout=5 * PATIENCE_SECONDS, check=False
    )
    assert piped.returncode == 1
    assert "fail  settings" in piped.stdout
    assert "\x1b" not in piped.stdout + piped.stderr
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with subprocess.Popen(arguments, env=environ, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            shown = b"".join(iter(lambda: read_terminal(terminal), b"")).decode()
        assert process.returncode == 1
    assert "settings" in shown
    assert bool(re.search("\x1b\\[[0-9;]*3[0-9]", shown)) is has_colours


def read_terminal(terminal: io.FileIO) -> bytes:
    try:
        return terminal.read(4096)
    except OSError:  # how Linux says that the other side has gone
        return b""


@pytest.mark.parametrize(
    "command",
    ["serve", "moderate", "doctor", "demo", "export-embedded", "eval", "bench", "guard", "init", "completion", "key"],
)
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"  weir {command}" in said
    for key in KEYS.get(command, []):
        assert FLAGS[key] in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"weir {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["srve"],
        ["serve", "--prot", "1"],
        ["serve", "--por", "1"],
        ["moderate"],
        ["demo", "--port", "1"],
        ["init", "a", "b"],
        ["demo", "--scripted-llm", "host"],
        ["demo", "--scripted-llm", "70000"],
        ["demo", "--stay", "--scripted-llm", "9000"],
        ["completion"],
        ["completion", "cmd"],
        ["bench"],
        ["bench", "relay"],
        ["bench", "guard", "--streams", "0"],
        ["bench", "guard", "--only", "speed"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_serve_without_an_upstream_is_a_sentence() -> None:
    done = weir("serve")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("weir serve needs an upstream: pass --upstream URL, or set [upstream] base_url")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (["--port", "x"], {}, '--port: [server] port must be a whole number, not "x".'),
        (["--mode", "strct"], {}, 'not "strct"; did you mean "strict"?'),
        (["--upstream", "api.openai.com"], {}, "--upstream: [upstream] base_url must start with http:// or https://."),
        (["--config", "none.toml"], {}, "none.toml: cannot be read: no such file or directory."),
        ([], {"WEIR_SERVER__PROT": "1"}, "WEIR_SERVER__PROT: there is no setting WEIR_SERVER__PROT"),
        ([], {"WEIR_LOG__LEVEL": "loud"}, "WEIR_LOG__LEVEL: [log] level must be"),
    ],
)
def test_wrong_settings_are_2_and_a_sentence(
    arguments: list[str],
    environ: dict[str, str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for command in (["serve"], ["moderate", "x.json"]):
        if command[0] == "moderate" and arguments[:1] in (["--port"], ["--upstream"]):
            continue  # not flags of it
        assert main([*command, *arguments]) == 2
        assert sentence in capsys.readouterr().err


def test_a_guard_that_is_not_there_is_1_and_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--upstream", "http://127.0.0.1:9", "--guard", "./no-such-guard"]) == 1
    loading, said = capsys.readouterr().err.splitlines()
    assert loading.startswith("loading the guard ./no-such-guard; until then 127.0.0.1:")
    assert said.startswith("The guard cannot be started: ")
    assert "no-such-guard" in said


def test_a_port_in_use_is_1_and_a_sentence(guard: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        assert main(["serve", "--upstream", "http://127.0.0.1:9", "--port", port, *guard]) == 1
    said = capsys.readouterr().err
    assert f"Port {port} of 127.0.0.1 is in use" in said
    assert "Traceback" not in said


def test_serve_says_where_it_listens_and_stops_at_a_signal(guard: list[str]) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "serve", "--upstream", "http://127.0.0.1:9", "--port", str(port), *guard],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert f"; until then 127.0.0.1:{port} answers with 503" in process.stderr.readline()
        assert f"http://127.0.0.1:{port}/v1" in process.stderr.readline()
        assert "small@" in process.stderr.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_SECONDS) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 0
    assert "Traceback" not in rest


def test_moderate_reads_standard_input_and_prints_json(
    guard: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(CONVERSATION).encode())))
    status = main(["moderate", "-", "--json", *guard])
    told = json.loads(capsys.readouterr().out)
    assert status == (3 if told["flagged"] else 0)
    assert "".join(token["text"] for token in told["texts"][0]["tokens"]) == "Hello."


def test_moderate_without_a_conversation_is_2(guard: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.json").write_text("{]")
    assert main(["moderate", "bad.json", *guard]) == 2
    assert capsys.readouterr().err == "bad.json: The body is not JSON (line 1, column 2).\n"


def test_doctor_reports_broken_settings_as_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--mode", "strct"]) == 1
    assert "fail  settings  --mode: [policy] mode must be" in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_trace(guard: list[str]) -> None:
    Path("answer.json").write_text(
        json.dumps({"messages": [CONVERSATION["messages"][0], {"role": "assistant", "content": "ab " * 500}]})
    )
    reader, writer = os.pipe()
    os.close(reader)  # as `weir moderate x --json | head` does
    with os.fdopen(writer, "w") as stdout, contextlib.redirect_stdout(stdout):
        assert main(["moderate", "answer.json", "--json", *guard]) == 1


def test_a_key_is_printed_with_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "new", "alice"]) == 0
    assert 'name = "alice"' in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["key", "new", "a b"])
    assert ended.value.code == 2
    assert "1 to 64 letters" in capsys.readouterr().err
