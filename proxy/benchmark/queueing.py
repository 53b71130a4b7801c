"""Plays a load to a way, in real time: tokens arrive whether or not it keeps up, and wait in their stream."""

import heapq
import time
from collections import deque
from collections.abc import Callable

from proxy.benchmark.arrivals import Lags, Load
from proxy.benchmark.ways import Way


class Queues:
    """Tokens that have arrived and have no verdict yet, by stream."""

    def __init__(self, load: Load) -> None:
        self._arrivals = load.arrivals
        self._next = [0] * len(load.arrivals)
        self._coming = [(times[0], stream) for stream, times in enumerate(load.arrivals) if times]
        heapq.heapify(self._coming)
        self._since: dict[int, deque[float]] = {}
        self.waiting: dict[int, int] = {}  # the stream that waits longest first

    @property
    def next_arrival(self) -> float | None:
        return self._coming[0][0] if self._coming else None

    def arrive(self, now: float) -> None:
        """Let in what has arrived until now."""
        while self._coming and self._coming[0][0] <= now:
            arrived, stream = self._coming[0]
            self.waiting[stream] = self.waiting.get(stream, 0) + 1
            self._since.setdefault(stream, deque()).append(arrived)
            self._next[stream] += 1
            times = self._arrivals[stream]
            if self._next[stream] < len(times):
                heapq.heapreplace(self._coming, (times[self._next[stream]], stream))
            else:
                heapq.heappop(self._coming)

    def answer(self, answered: dict[int, int], now: float) -> list[float]:
        """The lags of the tokens that were judged."""
        lags = []
        for stream, tokens in answered.items():
            since = self._since[stream]
            lags += [now - since.popleft() for _ in range(tokens)]
            left = self.waiting.pop(stream) - tokens
            if left:
                self.waiting[stream] = left  # behind the others
        return lags


def play(
    way: Way,
    load: Load,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Lags:
    """The lags of every token, or of as many as it takes to see that the load is too much."""
    way.open(len(load.arrivals))
    queues, lags = Queues(load), Lags(load.tokens)
    started = clock()
    while not lags.is_lost:
        now = clock() - started
        queues.arrive(now)
        if queues.waiting:
            answered = way.work(queues.waiting)
            lags.add(queues.answer(answered, clock() - started))
        elif queues.next_arrival is not None:
            sleep(queues.next_arrival - now)
        else:
            break
    return lags
