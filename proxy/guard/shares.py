"""A large step of a small model, cut into shares that run side by side, one a core.

torch's own threads split every operation; a small model has many that are too short for that. A share is
whole chunks, so its rows are what they would be in any other batch.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from proxy.guard.architecture import Architecture
from proxy.guard.slab import Placed

# Smaller shares cost more in calls than the second core saves.
SHARE_TOKENS = 64
# Layers that one core's caches hold; larger ones are read from memory, which one pass does once for all.
SMALL_BYTES = 16 << 20

T = TypeVar("T")


def is_small(shape: Architecture, element_bytes: int) -> bool:
    """Whether shares are faster than operations on several threads."""
    layer = shape.hidden * (2 * (shape.heads + shape.kv_heads) * shape.head_dim + 3 * shape.intermediate)
    return shape.layers * layer * element_bytes <= SMALL_BYTES


class Shares:
    """Runs work on up to `count` cores. To be made after a fork; `prepare` runs first in each thread of its own."""

    def __init__(self, count: int, prepare: Callable[[], None] | None = None) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count - 1, "guard-share", prepare) if count > 1 else None

    def run(self, work: Callable[[list[Placed]], list[T]], placed: list[Placed]) -> list[T]:
        """One result a chunk, in order. Raises what the work raises, when every share has ended."""
        first, *others = cut(placed, self._count)
        if self._pool is None or not others:
            return work(first)
        running = [self._pool.submit(work, share) for share in others]
        try:
            results = work(first)
        finally:
            wait(running)  # nobody may touch memory that a share still writes to
        for share in running:
            results += share.result()
        return results


def cut(placed: Sequence[Placed], count: int) -> list[list[Placed]]:
    """Chunks in order in at most `count` shares of about the same number of tokens, each with rows of its own."""
    total = placed[-1].first + placed[-1].chunk.count
    count = max(1, min(count, total // SHARE_TOKENS))
    # A chunk belongs where its middle lies.
    shares = [
        list(group) for _, group in groupby(placed, lambda at: (2 * at.first + at.chunk.count) * count // total // 2)
    ]
    return [[replace(at, first=at.first - share[0].first) for at in share] for share in shares]
