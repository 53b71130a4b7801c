"""What a token takes in a step of a few of many streams, with the attention of short chunks together and one by one.

    python -m bench.steps [--streams 200] [--of 25] [--history 150] [--rounds 5] [--random 0.6b]

An engine on one thread with the embedded guard, or with random weights of a released size, in float32; both ways by
turns on the same streams, medians over the rounds. The ratio is what to compare: a machine's pace changes.
"""

import argparse
import random
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from unittest.mock import patch

from rich.console import Console
from rich.progress import track

from proxy.guard import attention, runner
from proxy.guard.commands import Feed, Open
from proxy.guard.engine import Engine
from proxy.guard.loader import LoadedGuard, load_guard
from proxy.guard.random_weights import SHAPES, random_guard
from proxy.guard.runner import Runner
from proxy.risk import Role

STEPS = 20  # of one way before it is the other's turn
BUDGET_BYTES = 8 << 30  # of which what is not used is not taken
# Histories are this much longer or shorter than asked for, so that lengths differ.
SPREAD = 0.2


class Streams:
    """Streams of an engine, each with a history; a step feeds some of them one token each."""

    def __init__(self, loaded: LoadedGuard, count: int, history: int) -> None:
        made = Runner(loaded.model)
        made.use_threads(1)
        self._engine = Engine(made, window=loaded.info.window, budget_bytes=BUDGET_BYTES)
        self._dice = random.Random(1)
        self._vocabulary = made.vocabulary
        self._tickets = 0
        self._lengths = [round(history * self._dice.uniform(1 - SPREAD, 1 + SPREAD)) for _ in range(count)]
        for stream, length in enumerate(self._lengths):
            self._engine.apply(Open(stream, stream, self._ids(length), [], Role.USER, ""), time.monotonic())
        while self._engine.has_work:
            self._engine.step(time.monotonic())

    def step(self, count: int) -> float:
        """Microseconds of a step that feeds `count` of them."""
        now = time.monotonic()
        for stream in self._dice.sample(range(len(self._lengths)), count):
            self._tickets += 1
            self._engine.apply(Feed(self._tickets, stream, self._lengths[stream], self._ids(1)), now)
            self._lengths[stream] += 1
        begin = time.perf_counter()
        self._engine.step(now)
        return (time.perf_counter() - begin) * 1e6

    def _ids(self, count: int) -> list[int]:
        return [self._dice.randrange(self._vocabulary) for _ in range(count)]


def by_turns(streams: Streams, of: int, rounds: int, console: Console) -> Iterator[tuple[float, float]]:
    """Microseconds a token, together and one by one, of each round; one before the first is not counted."""
    for number in track(range(rounds + 1), "steps", console=console, transient=True):
        together = median(streams.step(of) for _ in range(STEPS)) / of
        with one_by_one():
            alone = median(streams.step(of) for _ in range(STEPS)) / of
        if number:
            yield together, alone


@contextmanager
def one_by_one() -> Iterator[None]:
    """As where torch has no kernels for short chunks together."""
    with patch.object(attention, "suits", return_value=False), patch.object(runner, "suits", return_value=False):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--of", type=int, default=25, help="that get a token in a step")
    parser.add_argument("--history", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--random", choices=SHAPES, help="random weights of this size, instead of the embedded guard's")
    wanted = parser.parse_args()
    console = Console(highlight=False)
    loaded = load_guard() if wanted.random is None else random_guard(wanted.random, dtype="float32")
    streams = Streams(loaded, wanted.streams, wanted.history)
    found = list(by_turns(streams, wanted.of, wanted.rounds, console))
    together, alone = (median(times) for times in zip(*found, strict=True))
    ratios = sorted(one / other for one, other in found)
    console.print(f"{wanted.of} of {wanted.streams} streams, a history of {wanted.history}: µs a token")
    console.print(f"together {together:.0f}, one by one {alone:.0f}")
    console.print(f"ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} rounds)")
    console.print(f"Again: {shlex.join(['python', '-m', 'bench.steps', *sys.argv[1:]])}", style="dim")


if __name__ == "__main__":
    main()
