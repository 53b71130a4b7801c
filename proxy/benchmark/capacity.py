"""Finds how many streams are carried: a rough search with short loads, then one by the protocol around its answer."""

from collections.abc import Callable

from proxy.benchmark.arrivals import SHARE, Lags, Load, make_load
from proxy.benchmark.figures import Capacity
from proxy.benchmark.search import Search
from proxy.benchmark.sizes import Pace
from proxy.benchmark.ways import NoRoom

ROUGH_SECONDS = 2.5
# A load is lost when it is lost this often in a row, by any way: what else the machine did then may lose one.
TRIES = 2

Play = Callable[[Load], Lags]
OnTrial = Callable[[int], None]


class Trials:
    """Tries counts of streams. Raises what `play` raises, but NoRoom, which is a failure of that count."""

    def __init__(self, play: Play, on_trial: OnTrial, most: int) -> None:
        self._play, self._on_trial, self._most = play, on_trial, most
        self._p95: dict[int, float] = {}
        self._without_room: set[int] = set()

    def search(self, start: int, gap: int, pace: Pace) -> int:
        search = Search(max(1, start), max(1, gap), self._most)
        while (count := search.next) is not None:
            self._on_trial(count)
            search.tell(count, has_passed=self._carries(count, pace))
        return search.found

    def result(self, context: int, way: str, streams: int) -> Capacity:
        limit = "search" if streams >= self._most else "lag"
        if any(count > streams for count in self._without_room):
            limit = "memory"
        return Capacity(context, way, streams, self._p95.get(streams, 0.0) * 1e3, limit)

    def _lags(self, load: Load) -> Lags:
        for _ in range(TRIES - 1):
            lags = self._play(load)
            if not lags.is_lost:
                return lags
        return self._play(load)

    def _carries(self, count: int, pace: Pace) -> bool:
        worst = 0.0
        for seed in range(pace.seeds):
            try:
                lags = self._lags(make_load(count, pace.seconds, seed))
            except NoRoom:
                self._without_room.add(count)
                self._most = min(self._most, count)
                return False
            if lags.is_lost:
                return False
            worst = max(worst, lags.percentile(SHARE))
        self._p95[count] = worst
        return True


def find_capacity(
    play: Play, context: int, way: str, *, pace: Pace, start: int, on_trial: OnTrial, most: int
) -> Capacity:
    """The capacity of what `play` plays to, beginning with `start` streams."""
    trials = Trials(play, on_trial, most)
    if pace.seconds > ROUGH_SECONDS:
        start = trials.search(start, start, Pace(ROUGH_SECONDS, 1))
        found = trials.search(start, start // 16, pace)
    else:
        found = trials.search(start, start, pace)
    return trials.result(context, way, found)
