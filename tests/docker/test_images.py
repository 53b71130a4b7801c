"""The image of docker/Dockerfile, built and run on a real engine: hardened, healthy, without a network, by compose.

`make containers` runs it.
"""

import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.demo import CONVERSATIONS
from proxy.export import export
from tests.docker.engine import (
    HARDENED,
    ROOT,
    SECONDS,
    built,
    container,
    docker,
    missing,
    port_of,
    state_of,
    until_healthy,
)

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
UPSTREAM = ("-e", "WEIR_UPSTREAM__BASE_URL=http://127.0.0.1:9000/v1", "-e", "WEIR_AUTH__OPEN=true")
PUBLISHED = ("-p", "127.0.0.1::8080")
SAFE, CUT, REFUSED = (one.question for one in CONVERSATIONS)


@pytest.fixture(scope="module")
def image() -> str:
    return built()


@contextmanager
def serving(*flags: str) -> Iterator[str]:
    """A hardened one before the scripted model, which shares its network."""
    with (
        container(*HARDENED, *PUBLISHED, *UPSTREAM, *flags, built()) as name,
        container("--network", f"container:{name}", "--no-healthcheck", built(), "demo", "--scripted-llm", "9000"),
    ):
        until_healthy(name)
        yield name


@pytest.fixture
def weir() -> Iterator[str]:
    with serving() as name:
        yield name


def ask(port: int, question: str, *, is_streamed: bool = True) -> str:
    body = {"model": "scripted", "stream": is_streamed, "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        text: str = answer.read().decode()
    return text


def finish_of(streamed: str) -> str | None:
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    reasons: list[str | None] = [event["choices"][0]["finish_reason"] for event in events if event["choices"]]
    return reasons[-1]


def test_hardened_it_is_healthy_passes_cuts_and_writes_nowhere(weir: str) -> None:
    port = port_of(weir)
    assert finish_of(ask(port, SAFE)) == "stop"
    assert finish_of(ask(port, CUT)) == "content_filter"
    with pytest.raises(urllib.error.HTTPError, match="400"):
        ask(port, REFUSED, is_streamed=False)
    status = docker("exec", weir, "cat", "/proc/1/status").stdout
    assert {line.split()[0]: line.split()[1] for line in status.splitlines()}.items() >= {
        "Uid:": "10001", "CapEff:": "0000000000000000", "NoNewPrivs:": "1", "Seccomp:": "2",
    }.items()  # fmt: skip
    assert docker("exec", weir, "touch", "/opt/weir/x", check=False).returncode != 0
    # A folder that is mounted shows as changed; nothing within it does.
    assert set(docker("diff", weir).stdout.split("\n")) <= {"", "A /tmp", "C /tmp", "C /models"}


def test_a_stop_lets_an_answer_finish_and_ends_with_status_0(weir: str) -> None:
    port = port_of(weir)
    said: list[str] = []
    asking = threading.Thread(target=lambda: said.append(ask(port, SAFE)))
    asking.start()
    time.sleep(0.2)  # the answer takes a second and more
    docker("stop", "--time", "40", weir)
    asking.join(SECONDS)
    assert finish_of(said[0]) == "stop"
    assert said[0].rstrip().endswith("data: [DONE]")
    assert state_of(weir, ".State.ExitCode") == "0"


def test_without_keys_it_does_not_start_and_says_what_it_wants(image: str) -> None:
    done = docker("run", "--rm", "-e", "WEIR_UPSTREAM__BASE_URL=http://127.0.0.1:9000/v1", image, check=False)
    assert done.returncode == 2
    assert "keys" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_network_it_judges_by_a_guard_that_is_mounted(image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # the container is another user
    export(tmp_path / "guard")
    run = ("run", "--rm", "--interactive", "--network", "none", *HARDENED, "-v", f"{tmp_path}/guard:/models/guard:ro")
    texts = {"Hello!": 0, CONVERSATIONS[2].question: 3}
    for text, status in texts.items():
        conversation = json.dumps({"messages": [{"role": "user", "content": text}]})
        done = docker(
            *run, "-e", "HF_HUB_OFFLINE=1", "-e", "WEIR_GUARD__MODEL=/models/guard", image, "moderate", "-", "--json",
            check=False, given=conversation,
        )  # fmt: skip
        assert done.returncode == status, done.stderr


def test_records_are_kept_in_a_volume_when_the_container_is_replaced(image: str) -> None:
    volume = f"weir-test-{time.time_ns()}"
    flags = ("-v", f"{volume}:/data", "-e", "WEIR_RECORDS__FILE=/data/records.db")
    try:
        for _ in range(2):
            with serving(*flags) as name:
                ask(port_of(name), CUT)
                docker("stop", name)
        listed = docker("run", "--rm", *HARDENED, *flags, image, "records", "list", "--json").stdout
    finally:
        docker("volume", "rm", "--force", volume)
    assert [json.loads(line)["outcome"] for line in listed.splitlines()] == ["cut", "cut"]


def composed() -> list[str]:
    """The command of compose that is here: the engine's own, or the older program."""
    if docker("compose", "version", check=False).returncode == 0:
        return ["docker", "compose"]
    found = shutil.which("docker-compose")
    if found is None:
        pytest.skip("the engine has no compose")
    return [found]


def test_compose_starts_weir_before_a_scripted_model(image: str, tmp_path: Path) -> None:
    command = composed()
    text = (ROOT / "docker" / "compose.yaml").read_text().replace("127.0.0.1:8080:8080", "127.0.0.1::8080")
    # The older program does not know the project's name in the file.
    text = text.replace("\nname: weir\n", "\n")
    file = tmp_path / "compose.yaml"
    file.write_text(text)
    given = [*command, "--project-name", f"weir-test-{time.time_ns()}", "--file", str(file)]

    def compose(*arguments: str) -> str:
        done = subprocess.run([*given, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    profiles = [flag for name in ("ollama", "llama", "monitoring") for flag in ("--profile", name)]
    everything: Any = compose(*profiles, "config")
    assert all(name in everything for name in ("ollama/ollama", "llama.cpp", "prom/prometheus", "grafana/grafana"))
    try:
        compose("up", "--detach", "--no-build")
        name = compose("ps", "--quiet", "weir").strip()
        until_healthy(name)
        assert finish_of(ask(port_of(name), SAFE)) == "stop"
        assert finish_of(ask(port_of(name), CUT)) == "content_filter"
        compose("stop")
        assert state_of(name, ".State.ExitCode") == "0"
    finally:
        compose("down", "--volumes")
