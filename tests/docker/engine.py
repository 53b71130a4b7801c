"""A container engine that runs here: images of docker/ are built and run as an operator does."""

import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
IMAGE = "weir"
STAND_IN = "weir-base"
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
BUILD_SECONDS = 1800.0
SECONDS = 120.0  # until a container is healthy, on a machine that has much else to do


def missing() -> str | None:
    if "WEIR_CONTAINERS" not in os.environ:
        return "`make containers` runs it"
    if shutil.which("docker") is None:
        return "no container engine is installed"
    return None if docker("info", check=False).returncode == 0 else "no container engine answers"


def docker(*arguments: str, check: bool = True, seconds: float = SECONDS, given: str = "") -> "Done":
    done = subprocess.run(
        ["docker", *arguments], cwd=ROOT, input=given, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}\n{(done.stdout + done.stderr)[-4000:]}"
    return done


Done = subprocess.CompletedProcess[str]


@cache
def built() -> str:
    """The image of docker/Dockerfile, built anew once a run."""
    docker(
        *("build", "--network", "host", "--build-arg", f"BASE={base()}", "-f", "docker/Dockerfile", "-t", IMAGE, "."),
        seconds=BUILD_SECONDS,
    )
    return IMAGE


def base() -> str:
    """The image that it builds on: what BASE names, the Dockerfile's own, or a stand-in where no registry answers."""
    own = re.findall(r"(?m)^ARG BASE=(\S+)$", (ROOT / "docker" / "Dockerfile").read_text())[0]
    wanted: str = os.environ.get("BASE") or own
    if docker("image", "inspect", wanted, check=False).returncode == 0:
        return wanted
    if docker("pull", wanted, check=False, seconds=BUILD_SECONDS).returncode == 0:
        return wanted
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip(f"{wanted} cannot be pulled, and a stand-in for it takes root and debootstrap")
    if docker("image", "inspect", STAND_IN, check=False).returncode != 0:
        script = [str(ROOT / "tests" / "docker" / "base.sh"), STAND_IN, os.environ.get("WHEELS", "")]
        subprocess.run(script, check=True, timeout=BUILD_SECONDS)
    return STAND_IN


@contextmanager
def container(*arguments: str) -> Iterator[str]:
    """The name of one that runs until the end at the latest; `arguments` are what follows `docker run`."""
    name = f"weir-test-{uuid.uuid4().hex[:8]}"
    docker("run", "--detach", "--name", name, *arguments)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name, check=False)


def state_of(name: str, what: str) -> str:
    return docker("inspect", "--format", f"{{{{{what}}}}}", name).stdout.strip()


def until_healthy(name: str) -> None:
    end = time.monotonic() + SECONDS
    while state_of(name, ".State.Health.Status") != "healthy":
        said = docker("logs", name, check=False).stderr
        assert state_of(name, ".State.Running") == "true", said
        assert time.monotonic() < end, f"{state_of(name, 'json .State.Health')}: {said}"
        time.sleep(0.5)


def port_of(name: str, port: int = 8080) -> int:
    """Where this machine reaches it."""
    return int(docker("port", name, str(port)).stdout.splitlines()[0].rpartition(":")[2])
