"""The load of a capacity measurement, and what the lags under it say. No clock, no torch.

Each stream receives tokens at a steady rate of U(30, 60) a second from a start at U(0, 1) s on, whether or not
the ones before are judged. The load is carried when 95 % of the tokens have their verdict within 20 ms.
"""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RATES = (30.0, 60.0)  # tokens a second
STARTS = (0.0, 1.0)  # seconds
LIMIT_SECONDS = 0.020
SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Load:
    """For each stream the seconds at which its tokens arrive."""

    arrivals: tuple[tuple[float, ...], ...]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.arrivals))


def make_load(streams: int, seconds: float, seed: int) -> Load:
    """A load of more streams holds the one of fewer."""
    return Load(tuple(_stream(random.Random(f"{seed} {number}"), seconds) for number in range(streams)))


def _stream(generator: random.Random, seconds: float) -> tuple[float, ...]:
    rate, start = generator.uniform(*RATES), generator.uniform(*STARTS)
    tokens = max(0, math.ceil((seconds - start) * rate))
    return tuple(start + number / rate for number in range(tokens))


class Lags:
    """Seconds from each token's arrival to its verdict, so far."""

    def __init__(self, tokens: int, limit: float = LIMIT_SECONDS) -> None:
        """`tokens` are expected in all."""
        self._values: list[float] = []
        self._limit = limit
        self._late = 0
        self._most_late = int(tokens * (1 - SHARE) + 1e-9)

    @property
    def is_lost(self) -> bool:
        """So many tokens were late that nothing to come can change the outcome."""
        return self._late > self._most_late

    def add(self, values: Iterable[float]) -> None:
        for value in values:
            self._values.append(value)
            self._late += value > self._limit

    def percentile(self, fraction: float) -> float:
        return percentile(sorted(self._values), fraction)


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The smallest of the values that `fraction` of them do not exceed; 0 without values."""
    return ordered[max(0, math.ceil(fraction * len(ordered) - 1e-9) - 1)] if ordered else 0.0
