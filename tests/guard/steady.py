"""Is something slower, or bigger, the longer it goes on? A line through the medians of windows, with its bounds."""

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Standard deviations to either side of a slope: 95 %, for thirty windows and more.
BOUND = 2.0


@dataclass(frozen=True, slots=True)
class Drift:
    """Change from the first window to the last, as a share of the mean, and its 95 % bounds."""

    mean: float
    share: float
    low: float
    high: float

    @property
    def is_flat(self) -> bool:
        """Zero lies within the bounds, or what lies above it is below one percent."""
        return self.low <= 0.01

    def __str__(self) -> str:
        return f"{self.share:+.2%} over the run (95 % bounds {self.low:+.2%} ... {self.high:+.2%}) of {self.mean:.3g}"


def drift(values: Sequence[float], windows: int = 40) -> Drift:
    """Least squares through the windows' medians; a busy machine moves single values, not those."""
    size = max(1, len(values) // windows)
    medians = [median(values[start : start + size]) for start in range(0, size * (len(values) // size), size)]
    count, mean = len(medians), fmean(medians)
    middle = (count - 1) / 2
    spread = sum((x - middle) ** 2 for x in range(count))
    slope = sum((x - middle) * (y - mean) for x, y in enumerate(medians)) / spread
    rest = [y - mean - slope * (x - middle) for x, y in enumerate(medians)]
    error = (sum(r * r for r in rest) / max(1, count - 2) / spread) ** 0.5
    whole = (count - 1) / mean
    return Drift(mean, slope * whole, (slope - BOUND * error) * whole, (slope + BOUND * error) * whole)


def resident_bytes() -> int:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def alive(*kinds: type) -> int:
    """Objects of these classes that something still refers to; none that `gc.freeze` has put away."""
    gc.collect()
    # Not isinstance: some modules answer it with a warning.
    return sum(type(thing) in kinds for thing in gc.get_objects())
