"""A page of memory that outlives the engine's process: is it alive, and whose tokens was it computing?

The engine writes, its supervisor reads; no locks, since after a death nobody writes any more, and a beat is
one aligned number.
"""

import mmap
import time
from collections.abc import Iterable
from struct import Struct

# Streams of one step that are noted; of a larger step the rest counts as innocent.
MAX_ENTRIES = 8192
HEADER = Struct("=dqq")  # when the engine last said that it is alive, steps it has finished, entries of the step
ENTRY = Struct("=qq")  # door, stream


class BlackBox:
    def __init__(self) -> None:
        # Shared with the processes that are forked from here on.
        self._memory = mmap.mmap(-1, HEADER.size + MAX_ENTRIES * ENTRY.size)
        self.clear()

    def clear(self, grace_seconds: float = 0.0) -> None:
        """A new engine begins. Until its first beat it may be silent for so much longer."""
        HEADER.pack_into(self._memory, 0, time.monotonic() + grace_seconds, 0, 0)

    # For the engine.

    def beat(self, steps: int) -> None:
        _, _, entries = HEADER.unpack_from(self._memory)
        HEADER.pack_into(self._memory, 0, time.monotonic(), steps, entries)

    def note(self, entries: Iterable[tuple[int, int]]) -> None:
        """The (door, stream) pairs of the step that is about to run; none when it is over."""
        packed = b"".join(ENTRY.pack(*entry) for entry in entries)[: MAX_ENTRIES * ENTRY.size]
        beat, steps, _ = HEADER.unpack_from(self._memory)
        # The count last: a death in between leaves the step before it, which is over, or nothing.
        HEADER.pack_into(self._memory, 0, beat, steps, 0)
        self._memory[HEADER.size : HEADER.size + len(packed)] = packed
        HEADER.pack_into(self._memory, 0, beat, steps, len(packed) // ENTRY.size)

    # For the supervisor.

    @property
    def silent_seconds(self) -> float:
        beat: float = HEADER.unpack_from(self._memory)[0]
        return time.monotonic() - beat

    @property
    def steps(self) -> int:
        steps: int = HEADER.unpack_from(self._memory)[1]
        return steps

    def suspects(self) -> dict[int, list[int]]:
        """door -> its streams in the step that did not end."""
        count: int = HEADER.unpack_from(self._memory)[2]
        found: dict[int, list[int]] = {}
        for index in range(count):
            door, stream = ENTRY.unpack_from(self._memory, HEADER.size + index * ENTRY.size)
            found.setdefault(door, []).append(stream)
        return found
