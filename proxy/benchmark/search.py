"""The largest count that passes: steps that double until one outcome turns, then bisection."""

# A search ends within this share of the count; one stream is never split.
PRECISION = 1 / 32


class Search:
    """Ask `next` what to try, `tell` how it went; at the end `found` passed and no tried count above it did."""

    def __init__(self, start: int, gap: int, most: int) -> None:
        """Begins at `start` and goes on by `gap`, 2 `gap`, 4 `gap` ... to where the outcome turns."""
        self.found = 0
        self._failed: int | None = None
        self._start, self._gap, self._most = min(start, most), gap, most

    @property
    def next(self) -> int | None:
        """None when the search is over."""
        low, failed = self.found, self._failed
        if failed is None:
            if low == self._most:
                return None
            return min(low + self._gap, self._most) if low else self._start
        if low == 0:
            return max(1, failed - self._gap) if failed > 1 else None
        return (low + failed) // 2 if failed - low > max(1, low * PRECISION) else None

    def tell(self, count: int, *, has_passed: bool) -> None:
        if has_passed:
            self.found = max(self.found, count)
        else:
            self._failed = count if self._failed is None else min(self._failed, count)
        if count != self._start:
            self._gap *= 2
