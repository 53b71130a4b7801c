"""What keys use, counted for several processes in memory that they share: exact, and without a question to anyone.

The parent makes the memory, each worker gets a row of it. Whoever reads or writes holds a lock of the system, which
is let go of when its process dies. A key has a place by the hash of its name, found once; it is never given up, so
that a request under way of a key that has been removed still counts where it began.

    place: 16 bytes of the name's hash | requests: used, at | tokens: used, at | running in row 0, 1, ... (32 bits each)
"""

import hashlib
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

if sys.platform != "win32":  # which has no workers
    import fcntl

# Names of keys in the life of a server; 1,000 at once are allowed. What nobody uses takes no memory.
PLACES = 16_384
NAME_BYTES, BUCKET_BYTES, COUNT_BYTES = 16, 16, 4
HEAD_BYTES = NAME_BYTES + 2 * BUCKET_BYTES


class SharedMemory:
    """The parent's."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.fd = os.memfd_create("weir-usage") if sys.platform == "linux" else _nameless_file()
        os.truncate(self.fd, PLACES * _place_bytes(rows))

    def clear(self, row: int) -> None:
        """Of a worker that is gone: nothing of it runs any more, and nobody else writes there."""
        size = PLACES * _place_bytes(self.rows)
        with mmap.mmap(self.fd, size) as memory, memoryview(memory) as view:
            for start in range(0, len(view), _place_bytes(self.rows)):
                if not any(view[start : start + NAME_BYTES]):
                    continue
                at = start + HEAD_BYTES + row * COUNT_BYTES
                view[at : at + COUNT_BYTES] = bytes(COUNT_BYTES)

    def close(self) -> None:
        os.close(self.fd)


class SharedUsages:
    """A worker's view of it."""

    def __init__(self, fd: int, rows: int, row: int) -> None:
        self._fd, self._rows, self._row = fd, rows, row
        self._view = memoryview(mmap.mmap(fd, PLACES * _place_bytes(rows)))

    def of(self, name: str) -> "SharedUsage":
        """Of the key of that name. Raises RuntimeError when there is no place left."""
        digest = hashlib.sha256(name.encode()).digest()[:NAME_BYTES]
        size = _place_bytes(self._rows)
        first = int.from_bytes(digest[:4], "big")
        with _locked(self._fd):
            for step in range(PLACES):
                start = (first + step) % PLACES * size
                found = bytes(self._view[start : start + NAME_BYTES])
                if found in (digest, bytes(NAME_BYTES)):
                    self._view[start : start + NAME_BYTES] = digest
                    return SharedUsage(self._view[start + NAME_BYTES : start + size], self._fd, self._row)
        raise RuntimeError("too many names of keys since the start of this server")


class SharedUsage:
    """A `key_limits.Usage`."""

    def __init__(self, view: memoryview, fd: int, row: int) -> None:
        self._fd, self._row = fd, row
        self.requests = view[:BUCKET_BYTES].cast("d")
        self.tokens = view[BUCKET_BYTES : 2 * BUCKET_BYTES].cast("d")
        self._counts = view[2 * BUCKET_BYTES :].cast("i")

    @property
    def running(self) -> int:
        return sum(self._counts)

    def add(self, running: int) -> None:
        self._counts[self._row] += running

    @contextmanager
    def lock(self) -> Iterator[None]:
        with _locked(self._fd):
            yield


def _place_bytes(rows: int) -> int:
    # A multiple of 8, for the numbers in it.
    return HEAD_BYTES + (rows + rows % 2) * COUNT_BYTES


def _nameless_file() -> int:
    with tempfile.TemporaryFile() as found:
        return os.dup(found.fileno())


@contextmanager
def _locked(fd: int) -> Iterator[None]:
    fcntl.lockf(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)
