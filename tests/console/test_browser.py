"""The page in a real Chromium, before the embedded guard: every view, light and dark, by key and keyboard.

`make console-pictures` runs it, and keeps the pictures in docs/.
"""

import asyncio
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image  # comes with matplotlib

from proxy.app import running
from proxy.config import load_settings
from proxy.demo import CONVERSATIONS, ScriptedLLM
from proxy.guards import open_guard
from tests.sockets import ask, free_port, http_request

FOLDER = Path(__file__).parent
PYTHON = FOLDER / ".venv-console" / "bin" / "python"
AXE = FOLDER / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KEY = "a-key-of-the-operators-own"
CLIENTS = 6
# Of the requests to one of the models no text is kept.
QUIET = """
[policies.quiet]
record_content = false

[[rules]]
models = ["small-model"]
policy = "quiet"
"""
SECONDS = 300


def missing() -> str | None:
    if "WEIR_CONSOLE" not in os.environ:
        return "`make console-pictures` runs it"
    if CHROMIUM is None:
        return "no chromium is installed"
    return None if PYTHON.exists() else "no playwright: `make console-pictures` installs it"


async def client(url: str, number: int) -> None:
    """Has one conversation after the other."""
    for turn in itertools.count(number):
        conversation = CONVERSATIONS[turn % len(CONVERSATIONS)]
        messages = [{"role": "user", "content": conversation.question}]
        model = ("large-model", "small-model")[turn % 2]
        await ask(url, http_request({"model": model, "stream": turn % 4 > 0, "messages": messages}))
        await asyncio.sleep(0.3 + 0.2 * number)


async def browse(url: str, axe: str, pictures: str) -> dict[str, object]:
    command = (str(PYTHON), str(FOLDER / "browser.py"), url, KEY, str(CHROMIUM), axe, pictures)
    async with asyncio.timeout(SECONDS):
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, object] = json.loads(said)
    return found


def shrink(pictures: Path) -> None:
    """To the 256 colours that each has most of, which are all but the edges of letters: a third of the bytes."""
    for picture in pictures.glob("console-*.png"):
        with Image.open(picture) as one:
            full = one.convert("RGB")
        counted: list[Any] = full.getcolors(full.width * full.height) or []
        palette = Image.new("P", (1, 1))
        palette.putpalette([part for _, colour in sorted(counted, reverse=True)[:256] for part in colour])
        full.quantize(palette=palette, dither=Image.Dither.NONE).save(picture, optimize=True)


# A browser and what drives it are installed by `make console-pictures`, and by nothing that Weir itself needs.
@pytest.mark.skipif(missing() is not None, reason=missing() or "")
async def test_every_view_works_and_can_be_read_by_all(tmp_path: Path) -> None:
    admin = free_port()
    async with ScriptedLLM().running() as upstream:
        values = {"upstream.base_url": upstream, "server.port": 0, "admin.port": admin, "admin.key": KEY}
        values["records.file"] = str(tmp_path / "records.db")
        values["records.content"] = True
        quiet = tmp_path / "quiet.toml"
        quiet.write_text(QUIET)
        settings = load_settings(quiet, overrides=values, environ={})
        guard = await open_guard(settings)
        try:
            async with running(settings, guard) as port, asyncio.TaskGroup() as group:
                clients = [group.create_task(client(f"http://127.0.0.1:{port}", number)) for number in range(CLIENTS)]
                axe = str(AXE) if AXE.exists() else ""
                found = await browse(f"http://127.0.0.1:{admin}/", axe, os.environ["WEIR_CONSOLE"])
                for one in clients:
                    one.cancel()
        finally:
            await guard.close()
    shrink(Path(os.environ["WEIR_CONSOLE"]))
    assert found["errors"] == found["elsewhere"] == []
    assert found["stays_text"]
    views = {f"{view}-{scheme}" for view in ("live", "playground", "records") for scheme in ("light", "dark")}
    assert found["violations"] == {view: [] for view in views}
    if not axe:
        pytest.skip("all but axe: node and npm are not installed")
