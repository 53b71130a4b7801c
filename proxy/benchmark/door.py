"""The service as the proxy uses it, asyncio and all: how fast it answers, and what load it carries."""

import asyncio
import time
from collections.abc import Iterable

from proxy.benchmark.arrivals import LIMIT_SECONDS, Lags, Load, percentile
from proxy.benchmark.figures import DoorSpeed
from proxy.benchmark.sizes import PROMPT_TOKENS, WARM_ROUNDS
from proxy.benchmark.ways import NoRoom, some_ids
from proxy.guard.answer import classify
from proxy.guard.protocol import Guard, GuardOverloaded, GuardStream
from proxy.guard.service import LocalGuard

ENOUGH_SECONDS = 5.0


class Door:
    """Streams at a guard's door that each have read `context` tokens. One event loop's."""

    def __init__(self, guard: Guard, vocabulary: int, context: int) -> None:
        self._guard, self._vocabulary, self._context = guard, vocabulary, context
        self.streams: list[GuardStream] = []

    async def open(self, streams: int) -> None:
        """Have at least so many streams, all back at the end of their context, and warm. Raises NoRoom."""
        for number in range(len(self.streams), streams):
            ids = some_ids(self._context, self._vocabulary, number)
            try:
                stream, _ = await self._guard.open(ids)
            except GuardOverloaded as exc:
                raise NoRoom(str(exc)) from exc
            self.streams.append(stream)
        async with asyncio.TaskGroup() as group:
            for number, stream in enumerate(self.streams[:streams]):
                group.create_task(self._warm(stream, number % self._vocabulary))

    async def _warm(self, stream: GuardStream, token: int) -> None:
        await classify(stream, self._context, [token])

    async def play(self, load: Load, limit: float = LIMIT_SECONDS) -> Lags:
        """See `queueing.play`; each stream asks for what has arrived as soon as its last question is answered."""
        await self.open(len(load.arrivals))
        lags = Lags(load.tokens, limit)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for stream, arrivals in zip(self.streams, load.arrivals, strict=False):
                group.create_task(self._listen(stream, arrivals, started, lags))
        return lags

    async def close(self) -> None:
        for stream in self.streams:
            await stream.close()
        self.streams.clear()

    async def _listen(self, stream: GuardStream, arrivals: tuple[float, ...], started: float, lags: Lags) -> None:
        judged, position = 0, self._context
        while judged < len(arrivals) and not lags.is_lost:
            now = time.perf_counter() - started
            if arrivals[judged] > now:
                await asyncio.sleep(arrivals[judged] - now)
                continue
            end = judged + 1
            while end < len(arrivals) and arrivals[end] <= now:
                end += 1
            await classify(stream, position, [token % self._vocabulary for token in range(judged, end)])
            now = time.perf_counter() - started
            lags.add(now - arrived for arrived in arrivals[judged:end])
            position, judged = position + end - judged, end


async def measure_speed(guard: Guard, vocabulary: int, *, streams: int, chunk: int, rounds: int) -> DoorSpeed:
    """Up to `rounds` chunks for every stream, fewer where they take too long; after a short warm-up."""
    door = Door(guard, vocabulary, PROMPT_TOKENS)
    await door.open(streams)
    try:
        started = time.perf_counter()
        await _talk(door, vocabulary, chunk, WARM_ROUNDS)
        a_round = (time.perf_counter() - started) / WARM_ROUNDS
        rounds = min(rounds, max(WARM_ROUNDS, int(ENOUGH_SECONDS / a_round)))
        started, started_cpu = time.perf_counter(), time.process_time()
        taken = await _talk(door, vocabulary, chunk, rounds)
        seconds, core_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    finally:
        await door.close()
    tokens, ordered = streams * chunk * rounds, sorted(taken)
    p50, p95, p99 = (percentile(ordered, fraction) * 1e3 for fraction in (0.5, 0.95, 0.99))
    of_cpu = tokens / core_seconds if isinstance(guard, LocalGuard) else None
    return DoorSpeed(streams, chunk, tokens / seconds, of_cpu, p50, p95, p99)


async def _talk(door: Door, vocabulary: int, chunk: int, rounds: int) -> list[float]:
    """Seconds of every question."""
    ids = some_ids(chunk, vocabulary, 0)
    taken: list[float] = []

    async def speak(stream: GuardStream) -> None:
        for number in range(rounds):
            started = time.perf_counter()
            await classify(stream, PROMPT_TOKENS + number * chunk, ids)
            taken.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for stream in door.streams:
            group.create_task(speak(stream))
    return taken


def median_of(speeds: Iterable[DoorSpeed]) -> DoorSpeed:
    """The one in the middle by tokens a second."""
    ordered = sorted(speeds, key=lambda speed: speed.tokens_a_second)
    return ordered[len(ordered) // 2]
