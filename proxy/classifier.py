"""The guard streams of one response: the prompt's, and a fork of it for each view of each channel."""

import asyncio
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import Any

from adapters.base import Key
from proxy.conversation import answer_frame
from proxy.deadline import Deadline
from proxy.guard.protocol import GuardFault, GuardStream, GuardTimeout, GuardUnavailable
from proxy.risk import Risk
from proxy.structs import Batch

# One risk for each token of each batch; or why there is none.
Verdicts = list[list[Risk]] | Exception
# The risks of one batch, or of each of several.
Answer = asyncio.Future[Any]

# Lags that a median is taken of: the newest of a long answer.
MAX_LAGS = 1024


class Lags:
    """Seconds from handing tokens over to their verdicts."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=MAX_LAGS)
        self.max: float | None = None
        self.count = 0  # of what was handed over
        self.first = 0.0  # when that began, by the monotonic clock
        self.last: float | None = None  # when it was over; None while verdicts are missing

    def begin(self, at: float) -> None:
        self.first = self.first if self.count else at
        self.last = None
        self.count += 1

    def add(self, begin: float, end: float) -> None:
        seconds = end - begin
        self._newest.append(seconds)
        self.max = max(seconds, self.max or 0.0)
        self.last = end

    @property
    def median(self) -> float | None:
        return median(self._newest) if self._newest else None


class Classifier:
    """Feeds batches to their guard streams. Use as an async context manager: leaving frees them all."""

    def __init__(self, prompt: GuardStream, verdict_seconds: float | None = None) -> None:
        self._prompt = prompt
        self._prompts = [prompt]
        self._choices_each = sys.maxsize
        self.verdict_seconds = math.inf if verdict_seconds is None else verdict_seconds
        self._deadline = Deadline()
        self._asked: Answer | None = None  # under way
        self._streams: dict[tuple[Key, int], tuple[GuardStream, int]] = {}
        self._stack = AsyncExitStack()
        self.lags = Lags()

    @property
    def slides(self) -> int:
        """How often the guard's window slid over a text that had outgrown it."""
        return sum(stream.slides for stream, _ in self._streams.values())

    async def __aenter__(self) -> "Classifier":
        self._stack.push_async_callback(self._prompt.close)
        self._stack.callback(self._deadline.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def share(self, others: Sequence["Classifier"], choices: int) -> None:
        """Take the prompts of others as well: `choices` are shared out among all, evenly and in order.

        The others keep their own prompts open, and must outlive this one.
        """
        self._prompts += [other._prompt for other in others]
        self._choices_each = choices // len(self._prompts)

    async def classify(self, batches: Sequence[Batch]) -> list[list[Risk]]:
        """One risk for each token of each batch. Raises GuardError."""
        told: asyncio.Future[list[list[Risk]]] = asyncio.get_running_loop().create_future()

        def tell(verdicts: Verdicts) -> None:
            if told.done():
                return
            if isinstance(verdicts, Exception):
                told.set_exception(verdicts)
            else:
                told.set_result(verdicts)

        self.put(batches, tell)
        try:
            # The guard keeps this deadline itself, and may be what hangs.
            with self._deadline.within(self.verdict_seconds):
                return await told
        except TimeoutError as exc:
            raise late() from exc
        finally:
            self.give_up()

    def put(self, batches: Sequence[Batch], tell: Callable[[Verdicts], None]) -> None:
        """`classify` without waiting, one call at a time: `tell` gets what it returns or raises.

        At once, where the guard answers at once; never by itself, where the guard hangs: then `give_up`.
        """
        begin = time.monotonic()
        self.lags.begin(begin)
        asked = self._asked = self._begin(batches)
        if asked.done():
            self._answered(batches, tell, begin, asked)
        else:
            asked.add_done_callback(partial(self._answered, batches, tell, begin))

    def _answered(
        self, batches: Sequence[Batch], tell: Callable[[Verdicts], None], begin: float, asked: Answer
    ) -> None:
        self._asked = None
        verdicts = _verdicts(asked, batches)
        if not isinstance(verdicts, Exception):
            self.lags.add(begin, time.monotonic())
        tell(verdicts)

    def give_up(self) -> None:
        """On what was put, if it is not answered yet."""
        if self._asked is not None:
            self._asked.cancel()

    def _begin(self, batches: Sequence[Batch]) -> Answer:
        if len(batches) > 1:
            return asyncio.ensure_future(self._classify_all(batches))
        batch = batches[0]
        known = self._streams.get((batch.key, batch.view))
        if known is None:
            return asyncio.ensure_future(self._classify(batch))
        stream, start = known
        return asyncio.ensure_future(stream.classify(start + batch.position, batch.ids))

    async def _classify_all(self, batches: Sequence[Batch]) -> list[list[Risk]]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._classify(batch)) for batch in batches]
        except BaseExceptionGroup as exc:  # one failure is enough to end the response
            raise exc.exceptions[0] from exc
        return [task.result() for task in tasks]

    async def _classify(self, batch: Batch) -> list[Risk]:
        frame: list[int] = []
        if (batch.key, batch.view) not in self._streams:
            frame = list(answer_frame(batch.kind).ids)
            fork = await self._prompts[batch.key.choice // self._choices_each].fork()
            self._stack.push_async_callback(fork.close)
            self._streams[batch.key, batch.view] = (fork, fork.position + len(frame))
        stream, start = self._streams[batch.key, batch.view]
        risks = await stream.classify(start + batch.position - len(frame), [*frame, *batch.ids])
        return risks[len(frame) :]  # frames flag falsely at fixed positions, and are not the model's text


def _verdicts(asked: Answer, batches: Sequence[Batch]) -> Verdicts:
    """What came of a call. Only GuardErrors are to be expected."""
    if asked.cancelled():
        return late()
    if (exc := asked.exception()) is not None:
        if isinstance(exc, TimeoutError):
            return late()
        if isinstance(exc, OSError):  # else it would pass for the client's own connection breaking
            return GuardUnavailable(type(exc).__name__)
        assert isinstance(exc, Exception)  # what else there is ends the event loop
        return exc
    risks = [asked.result()] if len(batches) == 1 else asked.result()
    for batch, found in zip(batches, risks, strict=True):
        if len(found) != len(batch.ids):
            return GuardFault(f"{len(found)} risks for {len(batch.ids)} tokens")
    return risks


def late() -> GuardTimeout:
    return GuardTimeout("no verdict within the deadline")
