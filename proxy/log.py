"""The log: lines that a thread of its own writes, so that no slow disk or terminal can hold up a stream."""

import logging
import logging.handlers
import queue
from collections.abc import Iterator
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


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)
