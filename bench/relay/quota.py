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
    """Each of these has `share` of a core and no more, until left.

    Raises ValueError for no share at all, and OSError for one that the system does not give, or not to us.
    """
    if not share > 0:  # which version 1 would take for no limit
        raise ValueError(f"{share:g} of a core is no share")
    with ExitStack() as groups:
        for pid in pids:
            groups.enter_context(_limited(pid, round(share * PERIOD_US)))
        yield


@contextmanager
def _limited(pid: int, quota_us: int) -> Iterator[None]:
    is_first_version = (VERSION_1 / "cpu.cfs_quota_us").exists()
    root = VERSION_1 if is_first_version else VERSION_2
    origin = _group_of(pid, root, "cpu" if is_first_version else "")
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
        _leave(group, origin)


def _group_of(pid: int, root: Path, controller: str) -> Path:
    """Where a process is now; lines are number:controllers:path. Raises OSError where there is no such process."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return root / path.lstrip("/")
    return root


def _leave(group: Path, origin: Path) -> None:
    for pid in (group / "cgroup.procs").read_text().split():
        (origin / "cgroup.procs").write_text(pid)
    group.rmdir()
