"""What Weir is made of: locked by hash, audited where that can be, without a network of its own, without pickles."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.supply.audit import main, verdict

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "supply-chain.md"
LOCK, IMAGE_LOCK = ROOT / "requirements.lock", ROOT / "docker" / "requirements.lock"
# Its builds differ from index to index, and so do their hashes; of the GPU packages that some bring, the versions too.
TORCH = "torch"
LINE = r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)( ; [^\\]+?)?((?: +--hash=sha256:[0-9a-f]{64})*) *"
UNSHARE = ["unshare", "--map-root-user", "--net"]


def pins_of(text: str) -> dict[str, str]:
    """name==version of each line that has one. Anything else in it but markers, hashes and comments is an error."""
    found: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            one = re.fullmatch(LINE, line)
            assert one is not None, line
            found[canonicalize_name(one[1])] = one[2]
    return found


def unhashed(text: str) -> list[str]:
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and "--hash=sha256:" not in line]


CONSTRAINTS = pins_of((ROOT / "constraints.txt").read_text())


def needed(roots: list[str]) -> set[str]:
    """Names of all that these distributions need here, themselves included; nothing beyond torch's own needs."""
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in seen:
            seen.add(name)
            for text in importlib.metadata.requires(name) or ():
                one = Requirement(text)
                if one.marker is None or one.marker.evaluate({"extra": ""}):
                    waiting.append(one.name)
    return seen


def test_l6_each_version_of_constraints_is_locked_with_its_hashes() -> None:
    text = LOCK.read_text()
    assert pins_of(text) == CONSTRAINTS, "constraints.txt has changed: `make lock` writes the lock again"
    assert unhashed(text) == []


def test_l6_an_image_is_built_of_nothing_but_locked_files_and_torch() -> None:
    text = IMAGE_LOCK.read_text()
    pins = pins_of(text)
    assert unhashed(text) == []
    assert pins.items() <= CONSTRAINTS.items(), "constraints.txt has changed: `make lock` writes the lock again"
    ours = importlib.metadata.requires("weir-proxy") or []
    wanted = [one for one in map(Requirement, ours) if one.marker is None or one.marker.evaluate({"extra": ""})]
    missing = needed([one.name for one in wanted]) - pins.keys()
    # On an index of GPU builds torch brings their libraries as well.
    assert {name for name in missing if not re.match(r"nvidia|cuda|triton", name)} == {TORCH}
    for file in (ROOT / "docker").glob("Dockerfile*"):
        assert "--no-deps --require-hashes --requirement requirements.lock" in file.read_text()


def test_every_package_that_an_image_holds_has_its_licence_on_the_page() -> None:
    table = PAGE.read_text().partition("| package | licence |")[2]
    rows = dict(re.findall(r"^\| ([a-z0-9-]+) \| (\S.*?) \|$", table, re.MULTILINE))
    assert rows.keys() == pins_of(IMAGE_LOCK.read_text()).keys() | {TORCH}


def test_a_lock_of_something_else_than_versions_and_hashes_is_no_lock() -> None:
    assert pins_of(f"A.b==1.0 ; python_version < '3.14' \\\n    --hash=sha256:{'0' * 64}\n") == {"a-b": "1.0"}
    for text in ("a>=1", "a @ file:///tmp/a.whl", "--index-url there", "a==1 --hash=md5:00"):
        with pytest.raises(AssertionError):
            pins_of(text)
    assert unhashed("a==1\n") == ["a==1"]


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1", **more}


HOLE = {"id": "CVE-1", "fix_versions": ["2"]}


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [
        ("no answer within 240 s", 0, ["skipped: no answer within 240 s; nothing was audited"]),
        (
            {"dependencies": [entry("a", skip_reason="not found"), entry("b", skip_reason="not found")]},
            0,
            ["skipped: no advisories are told here for any of 2 packages; nothing was audited"],
        ),
        ({"dependencies": [entry("a", vulns=[]), entry("b", vulns=[])]}, 0, ["2 of 2 packages audited, 0 known holes"]),
        (
            {"dependencies": [entry("a", vulns=[HOLE]), entry("b", skip_reason="not found")]},
            1,
            ["a 1: CVE-1, mended in 2", "1 of 2 packages audited, 1 known holes", "not audited: b"],
        ),
        (
            {"dependencies": [entry("a", vulns=[])]},
            0,
            ["1 of 2 packages audited, 0 known holes", "not audited: those that pip-audit did not report"],
        ),
    ],
)
def test_an_audit_that_asked_nobody_says_so(report: Any, status: int, said: list[str]) -> None:
    assert verdict(report, 2) == (status, said)


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("echo no route >&2; exit 1", 0, "audit: skipped: pip-audit could not ask for advisories; nothing was audited"),
        (
            f"echo '{json.dumps({'dependencies': [entry('a', vulns=[HOLE])]})}'; exit 1",
            1,
            "audit: a 1: CVE-1, mended in 2",
        ),
        (
            f"echo '{json.dumps({'dependencies': [entry('a', vulns=[])]})}'",
            0,
            "audit: 1 of 1 packages audited, 0 known",
        ),
    ],
)
def test_the_audit_fails_for_a_hole_and_for_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str, status: int, said: str
) -> None:
    lock, tool = tmp_path / "lock", tmp_path / "bin" / "pip-audit"
    lock.write_text("a==1\n")
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{program}\n")
    tool.chmod(0o755)
    assert main(str(tmp_path), str(lock)) == status
    assert capsys.readouterr().out.startswith(said)


def test_a_tool_that_does_not_start_leaves_the_audit_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip-audit").write_text("no program")
    (tmp_path / "lock").write_text("a==1\n")
    assert main(str(tmp_path), str(tmp_path / "lock")) == 0
    assert "skipped: pip-audit cannot be installed or started" in capsys.readouterr().out


def has_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False, timeout=10).returncode == 0


def test_l6_the_server_and_its_engine_turn_to_nobody_but_the_upstream(tmp_path: Path) -> None:
    """Where the system lets us, in a network namespace of its own, with nothing in it but loopback."""
    command = [sys.executable, "-m", "tests.supply.alone", str(tmp_path)]
    if has_namespaces():
        command = [*UNSHARE, *command, "--without-network"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["text"] == "one two"
    host, port = told["upstream"].removeprefix("http://").split(":")
    assert set(told["seen"]) == {f"socket.connect ('{host}', {port})"}
    if told["counted"] is not None:
        assert told["noticed"] == {"Ip.OutNoRoutes": 1, "Udp.OutDatagrams": 1}, "the count does not work here"
        assert set(told["counted"].values()) == {0}
