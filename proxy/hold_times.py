"""How long text was held: from the arrival of a delta to its release, in seconds.

Each released part of a delta counts once, not each of its characters: a part is what came in one event and left in one.
"""

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Final, final

from proxy.guard.metrics import Histogram

# Around what is aimed at: half of all text within 30 ms, all but a hundredth within 80 ms.
HOLD_SECONDS: Final[tuple[float, ...]] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


@final
class HoldTimes:
    """Of all streams of one process."""

    __slots__ = ("_clock", "_counts", "_total")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts = [0] * (len(HOLD_SECONDS) + 1)
        self._total = 0.0

    def of(self, arrived: Callable[[], float]) -> "Timing":
        return Timing(arrived, self)

    def released(self, arrived: float) -> None:
        """What came at `arrived`, by the same clock, leaves now. Asked for each delta of each stream: no call more."""
        seconds = self._clock() - arrived
        self._counts[bisect_left(HOLD_SECONDS, seconds)] += 1
        self._total += seconds

    def read(self) -> Histogram:
        return Histogram(HOLD_SECONDS, tuple(self._counts), self._total)


@final
class Timing:
    """What a room without a clock is handed for one stream."""

    __slots__ = ("arrived", "times")

    def __init__(self, arrived: Callable[[], float], times: HoldTimes) -> None:
        self.arrived: Final = arrived  # when that had come which is being received
        self.times: Final = times
