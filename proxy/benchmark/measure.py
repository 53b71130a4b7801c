"""One benchmark from start to end: which ways, at what sizes, in which order."""

import asyncio
import importlib.util
import os
import platform
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from proxy import __version__
from proxy.benchmark.arrivals import LIMIT_SECONDS, Lags, Load
from proxy.benchmark.capacity import Play, find_capacity
from proxy.benchmark.door import Door, measure_speed, median_of
from proxy.benchmark.figures import DoorSpeed, Figures
from proxy.benchmark.queueing import play
from proxy.benchmark.sizes import DOOR_STREAMS, DOOR_TOKENS, LONE_TOKENS, STEP_ROUNDS, Sizes
from proxy.benchmark.timing import time_steps, time_tokens
from proxy.benchmark.ways import EngineWay, NoRoom, Way
from proxy.guard.loader import LoadedGuard
from proxy.guard.protocol import Guard
from proxy.guard.runner import Runner
from proxy.guard.settings import GuardSettings

DOOR = "weir at the door"
REPEATS = 3  # of a speed at the door
MEAN_RATE = 45.0  # tokens a second of a stream

OpenGuard = Callable[[], Coroutine[None, None, Guard]]
MakeWay = Callable[[int], Way]  # from a context
Tell = Callable[[str, int, int], None]  # a table, how many of its parts are done, of how many


class Bench:
    """Measures one guard; `tell` hears of progress."""

    def __init__(self, loaded: LoadedGuard, settings: GuardSettings, sizes: Sizes, open_guard: OpenGuard, tell: Tell):
        """`settings` are those of the guard that `open_guard` opens on the same weights."""
        self.figures = Figures()
        self._loaded, self._settings, self._sizes, self._tell = loaded, settings, sizes, tell
        self._open_guard = open_guard
        runner = Runner(loaded.model)
        self._threads = settings.threads or runner.best_threads
        self._vocabulary = loaded.model.architecture.vocabulary
        # The ways run in this thread, the service's engine in its own.
        runner.use_threads(self._threads)
        self._baselines = self._make_baselines()

    def run(self, loop: asyncio.Runner) -> Figures:
        """Measure all tables. Raises GuardError."""
        parts = {"tokens": self._tokens, "steps": self._steps, "door": self._door, "capacity": self._capacity}
        self.figures.about = about(self._loaded, self._threads)
        for table in self._sizes.tables:
            parts[table](loop)
        return self.figures

    def _make_baselines(self) -> list[MakeWay]:
        if not has_transformers():
            reason = "the two other ways are not measured: they need transformers (pip install transformers)"
            self.figures.skipped.append(reason)
            return []
        from proxy.benchmark.baselines import CacheWay, RefeedWay, make_backbone

        loaded, backbone = self._loaded, make_backbone(self._loaded)
        return [
            lambda context: CacheWay(loaded, backbone, context),
            lambda context: RefeedWay(loaded, backbone, context),
        ]

    def _engine(self, context: int) -> EngineWay:
        return EngineWay(self._loaded, self._settings, context)

    def _tokens(self, _: asyncio.Runner) -> None:
        for done, history in enumerate(self._sizes.histories):
            self._tell("one more token", done, len(self._sizes.histories))
            ways = [make(history) for make in (self._engine, *self._baselines)]
            self.figures.tokens.append(time_tokens(ways, history))
            for way in ways:
                way.close()
        self._tell("one more token", len(self._sizes.histories), len(self._sizes.histories))

    def _steps(self, _: asyncio.Runner) -> None:
        sizes, done = self._sizes, 0
        total = len(sizes.streams) * len(sizes.chunks)
        with closing(self._engine(sizes.history)) as way:
            for streams in sizes.streams:
                for chunk in sizes.chunks:
                    self._tell("steps", done, total)
                    done += 1
                    try:
                        found = time_steps(way, streams=streams, chunk=chunk, history=sizes.history, rounds=STEP_ROUNDS)
                    except NoRoom as exc:
                        self.figures.skipped.append(f"steps of {streams} streams: {exc}")
                    else:
                        self.figures.steps.append(found)
        self._tell("steps", total, total)

    def _door(self, loop: asyncio.Runner) -> None:
        loads = [(1, 1, LONE_TOKENS)]
        loads += [(DOOR_STREAMS, chunk, max(2, DOOR_TOKENS // chunk)) for chunk in self._sizes.chunks]
        with self._guard(loop) as guard:
            for done, (streams, chunk, rounds) in enumerate(loads):
                self._tell("at the door", done, len(loads))
                self.figures.door.append(loop.run(self._speed(guard, streams, chunk, rounds)))
        self._tell("at the door", len(loads), len(loads))

    async def _speed(self, guard: Guard, streams: int, chunk: int, rounds: int) -> DoorSpeed:
        return median_of(
            [
                await measure_speed(guard, self._vocabulary, streams=streams, chunk=chunk, rounds=rounds)
                for _ in range(REPEATS)
            ]
        )

    def _capacity(self, loop: asyncio.Runner) -> None:
        sizes = self._sizes
        total = len(sizes.contexts) * (2 + len(self._baselines))
        for context in sizes.contexts:
            with closing(self._engine(context)) as way:
                start = first_guess(way)
                carried = self._find(lambda load: play(way, load), context, way.name, start, total)
            self._find_at_door(loop, context, carried or 1, total)
            for make in self._baselines:
                with closing(make(context)) as way:
                    self._find(lambda load: play(way, load), context, way.name, first_guess(way), total)
        self._tell("capacity", total, total)

    def _find_at_door(self, loop: asyncio.Runner, context: int, start: int, total: int) -> None:
        with self._guard(loop) as guard:
            door = Door(guard, self._vocabulary, context)

            def at_door(load: Load) -> Lags:
                return loop.run(door.play(load))

            self._find(at_door, context, DOOR, start, total)
            loop.run(door.close())

    def _find(self, playing: Play, context: int, way: str, start: int, total: int) -> int:
        def on_trial(count: int) -> None:
            self._tell(f"capacity at {context}: {way}, {count} streams", len(self.figures.capacity), total)

        sizes = self._sizes
        found = find_capacity(
            playing, context, way, pace=sizes.pace, start=start, on_trial=on_trial, most=sizes.most_streams
        )
        self.figures.capacity.append(found)
        return found.streams

    @contextmanager
    def _guard(self, loop: asyncio.Runner) -> Iterator[Guard]:
        guard = loop.run(self._open_guard())
        try:
            yield guard
        finally:
            loop.run(guard.close())


def has_transformers() -> bool:
    try:
        return importlib.util.find_spec("transformers") is not None
    except ValueError:  # it was imported and taken away again
        return False


def first_guess(way: Way) -> int:
    """A count of streams to begin with: some that a way which judges one call after another might carry."""
    way.open(1)
    one = time_tokens([way], 0, rounds=1).ms[way.name] / 1e3
    way.open(1)
    return max(1, min(64, int(0.5 / (MEAN_RATE * one)) if one < LIMIT_SECONDS else 1))


def about(loaded: LoadedGuard, threads: int) -> dict[str, Any]:
    """What is measured, and on what."""
    shape, model = loaded.model.architecture, loaded.model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "weir": __version__,
        "guard": f"{loaded.info.model}@{loaded.info.revision}",
        "shape": f"hidden {shape.hidden}, {shape.layers} layers",
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": f"{model.device} ({Runner(model).device_name})",
        "threads": threads,
        "cores": cores,
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
