"""The log: lines that a thread of its own writes, so that no slow disk or terminal can hold up a stream."""

import logging
import logging.handlers
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from proxy.settings import LogSettings

# Log lines that wait for a slow disk or terminal; what is more is dropped, never waited for.
MAX_LOG_LINES = 10_000


@contextmanager
def record_log(settings: LogSettings) -> Iterator[None]:
    """Write records from a thread of their own: a slow disk may never hold up a stream."""
    target = logging.FileHandler(settings.file) if settings.file else logging.StreamHandler()
    lines: queue.Queue[logging.LogRecord] = queue.Queue(MAX_LOG_LINES)
    listener = logging.handlers.QueueListener(lines, target)
    handler = _DroppingQueueHandler(lines)
    logger = logging.getLogger("weir")
    logger.setLevel(settings.level.upper())
    logger.addHandler(handler)
    logger.propagate = False
    listener.start()
    try:
        yield
    finally:
        logger.removeHandler(handler)
        listener.stop()
        target.close()


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


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)
