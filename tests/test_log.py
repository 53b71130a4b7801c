"""The log goes to a file, line by line."""

import json
import logging
import threading
import time
from pathlib import Path

from proxy.log import MAX_LOG_LINES, LineWriter, Seldom, record_log
from proxy.records import Record
from proxy.settings import LogSettings


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
    written = "\n".join(disk.text).split("\n")
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
