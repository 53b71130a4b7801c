"""A process with a share of a core uses no more of one, and all of it when the share is taken back."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.relay.load import cpu_seconds
from bench.relay.quota import limited

SHARE, SECONDS = 0.2, 0.6
BUSY = [sys.executable, "-c", "while True: pass"]


def is_allowed() -> bool:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            with limited([process.pid], 1.0):
                return True
        except OSError:
            return False


pytestmark = pytest.mark.skipif(not is_allowed(), reason="needs root, and control groups that may be made")


@pytest.fixture
def busy() -> Iterator[int]:
    with subprocess.Popen(BUSY) as process:
        time.sleep(0.2)
        yield process.pid
        process.kill()


def used(pid: int) -> float:
    """Cores that it takes."""
    before = cpu_seconds(pid)
    time.sleep(SECONDS)
    after = cpu_seconds(pid)
    assert before is not None
    assert after is not None
    return (after - before) / SECONDS


def test_a_share_is_all_that_a_process_gets(busy: int) -> None:
    with limited([busy], SHARE):
        assert used(busy) < 1.5 * SHARE
    free = used(busy)
    with limited([busy], SHARE):
        assert used(busy) < free


def test_it_goes_back_to_its_group_and_none_stays_behind(busy: int) -> None:
    groups = Path(f"/proc/{busy}/cgroup")
    before = groups.read_text()
    with limited([busy], SHARE):
        assert groups.read_text() != before
    assert groups.read_text() == before
    assert not list(Path("/sys/fs/cgroup").rglob("weir-bench-*"))


def test_a_process_that_is_gone_is_an_error_and_leaves_no_group() -> None:
    with pytest.raises(FileNotFoundError), limited([2**22 - 1], SHARE):
        pass
    assert not list(Path("/sys/fs/cgroup").rglob("weir-bench-*"))


@pytest.mark.parametrize(("share", "error"), [(0.001, OSError), (0.0, ValueError), (-1.0, ValueError)])
def test_what_is_no_share_is_an_error_and_leaves_no_group(busy: int, share: float, error: type[Exception]) -> None:
    with pytest.raises(error), limited([busy], share):
        pass
    assert not list(Path("/sys/fs/cgroup").rglob("weir-bench-*"))
