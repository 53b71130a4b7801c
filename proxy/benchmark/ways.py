"""What is measured: a way to judge the next tokens of some streams, in the caller's thread.

`EngineWay` is Weir's engine without a service: commands in, rows of bytes out. No torch here.
"""

import random
import time
from collections.abc import Mapping
from typing import Protocol

from proxy.guard.commands import Close, Command, Feed, Open, Outcome
from proxy.guard.limits import Limits
from proxy.guard.loader import LoadedGuard
from proxy.guard.protocol import GuardError, GuardOverloaded
from proxy.guard.service import build_engine
from proxy.guard.settings import GuardSettings
from proxy.risk import Role

# The benchmark decides which streams live: none gives way to another, and none waits long for room.
LIMITS = Limits(idle_seconds=1e9, admission_seconds=1.0)


class NoRoom(Exception):
    """The device has no memory for so many streams."""


class Way(Protocol):
    """Streams 0, 1, 2 ... that each have read the same number of tokens."""

    name: str

    def open(self, streams: int) -> None:
        """Have at least so many streams, all back at the end of their context. Raises NoRoom."""

    def work(self, waiting: Mapping[int, int]) -> dict[int, int]:
        """One call of the model. `waiting` has the tokens of each stream that are not judged yet, the stream that
        waits longest first; returned is how many of each have their verdict on the host now."""

    def close(self) -> None: ...


def some_ids(count: int, vocabulary: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(vocabulary), k=count)


class EngineWay:
    """All streams at once, each step with whatever waits."""

    name = "weir"

    def __init__(self, loaded: LoadedGuard, settings: GuardSettings, context: int) -> None:
        self.step_seconds: list[float] = []
        self._engine, _, use_this_thread = build_engine(loaded, settings)
        use_this_thread()
        self._vocabulary = loaded.model.architecture.vocabulary
        self._context = context
        self._positions: list[int] = []
        self._asked: dict[int, int] = {}  # ticket -> tokens; a stream has at most one question, with its own ticket

    def open(self, streams: int) -> None:
        """See `Way`. Prompts differ, so nothing of them is shared; each is followed by one token, to warm up."""
        for stream in range(len(self._positions), streams):
            ids = some_ids(self._context, self._vocabulary, stream)
            self._apply(Open(stream, stream, ids, [], Role.USER, ""))
            try:
                self._run()
            except GuardOverloaded as exc:
                self._apply(Close(stream))
                raise NoRoom(str(exc)) from exc
            self._positions.append(self._context)
        for stream in range(streams):
            self._apply(Feed(stream, stream, self._context, [stream % self._vocabulary]))
        self._run()
        self.rewind()

    def rewind(self) -> None:
        """Put all streams back at the end of their context."""
        self._positions = [self._context] * len(self._positions)

    def work(self, waiting: Mapping[int, int]) -> dict[int, int]:
        for stream, tokens in waiting.items():
            if stream not in self._asked:
                self._asked[stream] = tokens
                position = self._positions[stream]
                ids = [(position + number) % self._vocabulary for number in range(tokens)]
                self._apply(Feed(stream, stream, position, ids))
        answered: dict[int, int] = {}
        for outcome in self._step():
            stream = outcome.ticket
            answered[stream] = self._asked.pop(stream)
            self._positions[stream] += answered[stream]
        return answered

    def close(self) -> None:
        for stream in range(len(self._positions)):
            self._apply(Close(stream))
        self._positions.clear()

    def _run(self) -> None:
        while self._engine.has_work:
            self._step()
        self._asked.clear()

    def _step(self) -> list[Outcome]:
        started = time.perf_counter()
        outcomes = self._engine.step(time.monotonic())
        self.step_seconds.append(time.perf_counter() - started)
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        return outcomes

    def _apply(self, command: Command) -> None:
        outcome = self._engine.apply(command, time.monotonic())
        if outcome is not None:
            raise outcome.error or GuardError("an answer to a question that was not computed")
