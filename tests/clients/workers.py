"""The processes in which clients run, one for each environment: starting one a call would take most of the time."""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
APPS = FOLDER / "apps"
CALL_SECONDS = 60
OLDEST_NODE = 20


def is_complete() -> bool:
    """`make clients` has made the environments, and a client that cannot run is a failure."""
    return os.environ.get("WEIR_CLIENTS") == "1"


def command_for(environment: str, package: str) -> list[str] | str:
    """How to start the worker, or why there is none."""
    if is_complete() and environment == "node":
        return _node_command()
    if is_complete():
        python = FOLDER / f".venv-{environment}" / "bin" / "python"
        return [str(python), "worker.py"]
    # In the tests of this checkout, what its own environment has.
    if environment == "current" and importlib.util.find_spec(package) is not None:
        return [sys.executable, "worker.py"]
    return "`make clients` runs it, in an environment of its own"


def _node_command() -> list[str] | str:
    program = shutil.which("node")
    if program is None or shutil.which("npm") is None:
        return "node and npm are not installed"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        return f"node {version} is older than {OLDEST_NODE}"
    return [program, "worker.mjs"]


class Worker:
    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, cwd=APPS, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def call(self, **asked: Any) -> dict[str, Any]:
        """Raises TimeoutError. In a thread, so that the loop goes on serving."""
        return await asyncio.wait_for(asyncio.to_thread(self._call, asked), CALL_SECONDS)

    def _call(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "the worker has died"
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
