"""The log: lines that a thread of its own writes, so that no slow disk or terminal can hold up a stream."""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from proxy.settings import LogSettings

# Log lines that wait for a slow disk or terminal; what is more is dropped, never waited for.
MAX_LOG_LINES = 10_000
# While lines come, they are looked for so often: to wake the thread for each would cost a request more than its line.
GATHER_SECONDS = 0.05
# After so many looks in vain it sleeps until a line wakes it.
QUIET_LOOKS = 40
# How long a stop waits for a disk.
CLOSE_SECONDS = 5.0
# Between two sentences on standard error that say that lines are being lost.
TELL_SECONDS = 60.0


@contextmanager
def record_log(settings: LogSettings) -> Iterator[None]:
    """Write records from a thread of their own: a slow disk may never hold up a stream."""
    lines = LineWriter(FileTarget(settings.file) if settings.file else TerminalTarget())
    logger = logging.getLogger("weir")
    logger.setLevel(settings.level.upper())
    logger.addHandler(lines)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(lines)
        lines.close()


class Seldom:
    """Picks so many lines a second of a kind that may come in floods, which would only help to fill the disk."""

    def __init__(self, lines_a_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds: deque[float] = deque(maxlen=lines_a_second)  # when the newest were written
        self._clock = clock
        self._left_out = 0

    def pick(self) -> int | None:
        """How many have been left out since the last one; None where this one is left out, too."""
        now = self._clock()
        if len(self._seconds) == self._seconds.maxlen and now - self._seconds[0] < 1.0:
            self._left_out += 1
            return None
        self._seconds.append(now)
        left_out, self._left_out = self._left_out, 0
        return left_out


class FileTarget(logging.Handler):
    """Appends whole lines to a file: one that a full disk has torn is ended before the next. `emit` raises OSError."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        super().__init__()
        self._file = path.open("ab", buffering=0)
        self._is_torn = False

    def emit(self, record: logging.LogRecord) -> None:
        data = b"\n" * self._is_torn + record.getMessage().encode(errors="backslashreplace") + b"\n"
        while data:
            count = self._file.write(data)
            self._is_torn = data[count - 1 : count] != b"\n"
            data = data[count:]

    def close(self) -> None:
        self._file.close()
        super().close()


class TerminalTarget(logging.StreamHandler[TextIO]):
    """Writes to standard error. `emit` raises OSError."""

    def handleError(self, _: logging.LogRecord) -> None:
        raise


class LineWriter(logging.Handler):
    """Hands lines over to a thread, which gives them to `target`, many at a time. `close` waits for the last.

    What the target cannot write, and what waits for it for too long, is lost, which is told on standard error.
    """

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._lines: deque[str] = deque()
        self._lost = 0  # lines, since it last wrote one
        self._next_tell = 0.0
        self._has_lines = threading.Event()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weir-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._lines) >= MAX_LOG_LINES:
            self._lose(1, "it takes none")
            return
        self._lines.append(self.format(record))
        if not self._has_lines.is_set():
            self._has_lines.set()

    def close(self) -> None:
        """Within CLOSE_SECONDS: a disk that hangs may hold up no end."""
        self._is_closed.set()
        self._has_lines.set()
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            with suppress(OSError):
                self._target.close()
        super().close()

    def _run(self) -> None:
        while not self._is_closed.is_set():
            self._has_lines.wait()
            quiet = 0
            while quiet < QUIET_LOOKS and not self._is_closed.wait(GATHER_SECONDS):
                quiet = 0 if self._write() else quiet + 1
            # Before the last look: a line that comes after it wakes us again.
            self._has_lines.clear()
            self._write()

    def _write(self) -> bool:
        """Hand on what waits, if anything does."""
        if not (waiting := len(self._lines)):
            return False
        text = "\n".join(self._lines.popleft() for _ in range(waiting))
        if lost := self._lost:
            text = f"log: {lost} lines could not be written\n{text}"
        try:
            self._target.handle(logging.makeLogRecord({"msg": text}))
            self._lost -= lost
        except OSError as exc:
            self._lose(waiting, exc.strerror or type(exc).__name__)
        return True

    def _lose(self, count: int, why: str) -> None:
        self._lost += count
        if (now := time.monotonic()) >= self._next_tell:
            self._next_tell = now + TELL_SECONDS
            with suppress(OSError, ValueError):  # where that is what cannot be written to
                print(f"weir: the log cannot be written: {why}; lines are lost", file=sys.stderr, flush=True)
