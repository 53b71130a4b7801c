"""Slopes with their bounds: Theil and Sen's estimator, which a few wild samples do not move."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Of a normal distribution: 95 % lie within so many standard deviations of its mean.
WIDTH = 1.96
# All pairs of so many samples are compared; of more, evenly spaced ones.
MAX_SAMPLES = 500


@dataclass(frozen=True)
class Slope:
    """Per hour, with the bounds of 95 % confidence. Samples that follow each other are taken for independent."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} an hour (95 %: {self.low:+.2f} ... {self.high:+.2f})"


def slope_of(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """Raises ValueError for less than three samples."""
    if len(seconds) < 3:
        raise ValueError(f"{len(seconds)} samples have no slope")
    step = -(-len(seconds) // MAX_SAMPLES)
    times, found = seconds[::step], values[::step]
    count = len(times)
    slopes = sorted(
        (found[j] - found[i]) / (times[j] - times[i]) * 3600 for i in range(count) for j in range(i + 1, count)
    )
    spread = WIDTH * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, round((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    return Slope(slopes[len(slopes) // 2], slopes[low], slopes[high])
