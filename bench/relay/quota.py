"""A share of a core for a process, and no more: how a proxy scales is seen only where it is what is short.

On a machine of few cores the load and the engine need some of what a second worker would use. Linux control groups,
which only root may make: `cpu.cfs_quota_us` of version 1, `cpu.max` of version 2.
Source: Documentation/scheduler/sched-bwc.rst and Documentation/admin-guide/cgroup-v2.rst.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

# Short, so that who has used its share waits milliseconds for the next one; Linux allows no less than 1 ms of use.
PERIOD_US = 10_000
VERSION_1 = Path("/sys/fs/cgroup/cpu")
VERSION_2 = Path("/sys/fs/cgroup")


@contextmanager
def limited(pids: Sequence[int], share: float) -> Iterator[None]:
    """Each of these has `share` of a core and no more, until left. Raises OSError where that is not allowed."""
    with ExitStack() as groups:
        for pid in pids:
            groups.enter_context(_limited(pid, round(share * PERIOD_US)))
        yield


@contextmanager
def _limited(pid: int, quota_us: int) -> Iterator[None]:
    is_first_version = (VERSION_1 / "cpu.cfs_quota_us").exists()
    root = VERSION_1 if is_first_version else VERSION_2
    group = root / f"weir-bench-{pid}"
    group.mkdir()
    try:
        if is_first_version:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        _leave(root, group)


def _leave(root: Path, group: Path) -> None:
    for pid in (group / "cgroup.procs").read_text().split():
        (root / "cgroup.procs").write_text(pid)
    group.rmdir()
