"""The log goes to a file, line by line."""

import json
import logging
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy import log
from proxy.log import MAX_LOG_LINES, FileTarget, LineWriter, Seldom, TerminalTarget, record_log
from proxy.records import Record
from proxy.settings import LogSettings
from tests.sockets import PATIENCE_SECONDS


def test_records_go_to_a_file_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "weir.log"
    with record_log(LogSettings(file=path)):
        for number in range(3):
            Record(f"weir-{number}", "/v1/x", "default", "g@1").write()
        logging.getLogger("weir.http").warning("not served: X")
    lines = path.read_text().splitlines()
    assert [json.loads(line)["request_id"] for line in lines[:3]] == ["weir-0", "weir-1", "weir-2"]
    assert lines[3] == "not served: X"


def test_a_log_level_above_info_writes_no_records(tmp_path: Path) -> None:
    path = tmp_path / "weir.log"
    with record_log(LogSettings(file=path, level="warning")):
        Record("weir-1", "/v1/x", "default", "g@1").write()
    assert path.read_text() == ""


def test_of_a_flood_few_lines_a_second_are_picked_and_the_others_counted() -> None:
    now = [100.0]
    lines = Seldom(3, lambda: now[0])
    assert [lines.pick() for _ in range(10)] == [0, 0, 0, *[None] * 7]
    now[0] += 1.0
    assert [lines.pick() for _ in range(4)] == [7, 0, 0, None]
    now[0] += 5.0
    assert lines.pick() == 1


class Slow(logging.Handler):
    """A disk that takes nothing before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = threading.Event()
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert self.may_write.wait(60)
        self.text.append(record.getMessage())


def test_a_slow_disk_holds_nobody_up_and_costs_the_newest_lines() -> None:
    disk = Slow()
    lines = LineWriter(disk)
    for number in range(3 * MAX_LOG_LINES):
        lines.handle(logging.makeLogRecord({"msg": f"{number}"}))
    disk.may_write.set()
    lines.close()
    said = "\n".join(disk.text).split("\n")
    written = [line for line in said if not line.startswith("log: ")]
    assert 1 <= len(said) - len(written) <= 2  # it says how many are missing
    assert MAX_LOG_LINES <= len(written) <= 2 * MAX_LOG_LINES  # what waits, and what the disk was at
    assert written[:MAX_LOG_LINES] == [f"{number}" for number in range(MAX_LOG_LINES)]


def test_a_line_is_written_though_none_follows_it() -> None:
    disk = Slow()
    disk.may_write.set()
    lines = LineWriter(disk)
    lines.handle(logging.makeLogRecord({"msg": "alone"}))
    for _ in range(6000):
        if disk.text:
            break
        time.sleep(0.01)
    assert disk.text == ["alone"]
    lines.close()


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
def test_what_a_full_disk_cannot_take_is_counted_and_a_torn_line_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit of a file's size stands for the disk's."""
    path = tmp_path / "weir.log"
    target = FileTarget(path)
    lines = LineWriter(target)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        lines.handle(logging.makeLogRecord({"msg": "first"}))
        until(lambda: path.read_bytes() == b"first\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, was[1]))
        for count in range(1, 4):
            lines.handle(logging.makeLogRecord({"msg": "second"}))
            until(lambda count=count: lines._lost == count)  # type: ignore[misc]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handled)
    lines.handle(logging.makeLogRecord({"msg": "third"}))
    lines.close()
    assert path.read_text().splitlines() == ["first", "seco", "log: 3 lines could not be written", "third"]
    assert capsys.readouterr().err == "weir: the log cannot be written: File too large; lines are lost\n"


def test_a_disk_that_hangs_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "CLOSE_SECONDS", 0.1)
    disk = Slow()
    lines = LineWriter(disk)
    lines.handle(logging.makeLogRecord({"msg": "x"}))
    begin = time.monotonic()
    lines.close()
    assert time.monotonic() - begin < PATIENCE_SECONDS
    disk.may_write.set()


def test_a_terminal_that_is_gone_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("w") as full:
        target = TerminalTarget(full)
        lines = LineWriter(target)
        lines.handle(logging.makeLogRecord({"msg": "x"}))
        until(lambda: lines._lost == 1)
        lines.close()
        with pytest.raises(OSError, match="No space"):
            full.close()
    assert "No space left on device; lines are lost" in capsys.readouterr().err
