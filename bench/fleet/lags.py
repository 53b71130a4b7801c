"""Lags, counted: how many of a group and a second fell where. A percentile is off by less than one bucket of 2 %."""

import numpy as np

from bench.fleet.model import Ints, Numbers

LEAST, MOST, RATIO = 100e-6, 120.0, 1.02
BUCKETS = int(np.ceil(np.log(MOST / LEAST) / np.log(RATIO))) + 1


class Lags:
    def __init__(self, groups: int, seconds: int) -> None:
        """What comes after the last second counts as of it."""
        self.counts = np.zeros((groups, seconds, BUCKETS), np.int64)

    def add(self, groups: Ints, seconds: Numbers, lags: Numbers) -> None:
        """One verdict each: whose, when, and how late."""
        bucket = np.log(np.maximum(lags, LEAST) / LEAST) / np.log(RATIO)
        at_second = np.clip(seconds.astype(np.int64), 0, self.counts.shape[1] - 1)
        at = (groups * self.counts.shape[1] + at_second) * BUCKETS + np.minimum(bucket.astype(np.int64), BUCKETS - 1)
        # Few verdicts fall into many buckets: adding them one by one is cheaper than counting all buckets.
        np.add.at(self.counts.reshape(-1), at, 1)

    def of(self, group: int | None = None, since: int = 0, until: int | None = None) -> Ints:
        """Counts by bucket, of a group or of all, in some seconds."""
        chosen = self.counts if group is None else self.counts[group : group + 1]
        found: Ints = chosen[:, since:until].sum(axis=(0, 1))
        return found

    @property
    def total(self) -> int:
        return int(self.counts.sum())


def percentile(counts: Ints, share: float) -> float:
    """Seconds that this share of them does not exceed, as the upper end of a bucket; 0 without any."""
    total = int(counts.sum())
    if not total:
        return 0.0
    bucket = int(np.searchsorted(np.cumsum(counts), share * total - 1e-9))
    return float(LEAST * RATIO ** (bucket + 1))


def late_share(counts: Ints, limit: float) -> float:
    """The share that is later than `limit` seconds."""
    first = int(np.log(limit / LEAST) / np.log(RATIO)) + 1
    return float(counts[first:].sum() / max(1, counts.sum()))
