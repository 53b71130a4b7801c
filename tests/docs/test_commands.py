"""Every command of the pages is run, page by page as a reader would, or says why it is not."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sockets import free_port

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELLS = {"sh", "bash", "shell", "console"}
MARK = re.compile(r"<!-- not run: .{8,} -->")
SECONDS = 240  # of a page, on a machine that has much else to do


@dataclass(frozen=True, slots=True)
class Block:
    line: int
    language: str
    text: str
    is_marked: bool


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, those inside lists too."""
    lines = text.splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if start is None:
            start = number
            continue
        indent = len(lines[start]) - len(lines[start].lstrip())
        inside = "\n".join(one[indent:] for one in lines[start + 1 : number])
        above = lines[start - 1] if start else ""
        yield Block(start + 1, lines[start].strip()[3:], inside, bool(MARK.fullmatch(above.strip())))
        start = None


def script_of(page: Path) -> str:
    return "\n".join(one.text for one in blocks(page.read_text()) if one.language in SHELLS and not one.is_marked)


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In bash, in an empty folder, with this tree's `weir`, on ports of its own; all that it started ends with it."""
    upstream, weir, admin = (str(free_port()) for _ in range(3))
    script = script.replace("9000", upstream).replace("8080", weir).replace("9464", admin)
    (folder / "bin").mkdir()
    command = folder / "bin" / "weir"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m proxy "$@"\n')
    command.chmod(0o755)
    (folder / "work").mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")} | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "WEIR_SERVER__PORT": weir,
        "WEIR_GUARD__THREADS": "1",
        "WEIR_SERVER__MAX_LAG_SECONDS": "3600",  # the machine may have much else to do
    }
    # Into files: what runs on in the background would keep a pipe open.
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=folder / "work",
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            status = process.wait(SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):  # nothing was left running
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return subprocess.CompletedProcess([], status, (folder / "out").read_text(), (folder / "err").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_says_what_language_it_is(page: Path) -> None:
    for one in blocks(page.read_text()):
        assert one.language or not re.search(r"^(make|weir|pip|curl|docker|export) ", one.text, re.MULTILINE), (
            f"{page.name} line {one.line}: a block of commands must be marked as sh"
        )
        assert not one.is_marked or one.language in SHELLS, f"{page.name} line {one.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_stands_in_a_block_that_has_fences(page: Path) -> None:
    """Else nobody runs it, and nobody says why not."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())
    found = re.findall(r"(?m)^ {4,}(?:make|weir|pip|curl|docker|export|kill|python3?) .*", text)
    assert not found, f"{page.name}: {found}"


# The commands of pages are written for a shell, and ask as readers would; both are on all but the barest systems.
@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("curl") is None, reason="needs bash and curl")
@pytest.mark.parametrize("page", [page for page in PAGES if script_of(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    if page.name != "quickstart.md" and "WEIR_LONG" not in os.environ:
        pytest.skip("WEIR_LONG=1 runs the commands of every page; without it, those of the quick start")
    done = run(script_of(page), tmp_path)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stdout + done.stderr
    if page.name == "quickstart.md":
        said = "".join(re.findall(r'"content": ?"((?:[^"\\]|\\.)*)"', done.stdout))
        assert "Weir can serve." in done.stdout
        assert "good morning to all of you" in said
        assert "Fireworks were invented in China" in said
        assert "as many people" not in said
        assert "explosives" not in done.stdout
        assert re.search(r'"finish_reason": ?"content_filter"', done.stdout)
        assert re.search(r'"code": ?"content_filter"', done.stdout)
    if page.name == "deployment.md":
        assert '"scripted"' in done.stdout


def test_a_failing_command_fails_its_page(tmp_path: Path) -> None:
    assert run("echo one\nfalse\necho two", tmp_path).stdout == "one\n"


def test_blocks_are_found_in_lists_and_marks_only_right_above_them() -> None:
    text = "<!-- not run: it costs money -->\n```sh\na\n```\n1. x\n\n   ```sh\n   b\n     c\n   ```\n"
    assert list(blocks(text)) == [Block(2, "sh", "a", True), Block(7, "sh", "b\n  c", False)]
