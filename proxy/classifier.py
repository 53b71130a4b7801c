"""The guard streams of one response: the prompt's, and a fork of it for each view of each channel."""

import asyncio
import math
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from proxy.conversation import answer_frame
from proxy.deadline import Deadline
from proxy.guard.protocol import GuardStream
from proxy.inquiry import Inquiry, Lags, Verdicts, late
from proxy.risk import Risk
from proxy.structs import Batch


class Classifier:
    """Feeds batches to their guard streams. Use as an async context manager: leaving frees them all."""

    def __init__(self, prompt: GuardStream, verdict_seconds: float | None = None) -> None:
        self._prompt = prompt
        self._prompts = [prompt]
        self._choices_each = sys.maxsize
        self.verdict_seconds = math.inf if verdict_seconds is None else verdict_seconds
        self._deadline = Deadline()
        self._stack = AsyncExitStack()
        self.inquiry = Inquiry(self._ask)
        self._streams = self.inquiry.streams

    @property
    def lags(self) -> Lags:
        return self.inquiry.lags

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

        self.inquiry.put(batches, tell)
        try:
            # The guard keeps this deadline itself, and may be what hangs.
            with self._deadline.within(self.verdict_seconds):
                return await told
        except TimeoutError as exc:
            raise late() from exc
        finally:
            self.inquiry.give_up()

    async def _ask(self, batches: Sequence[Batch]) -> list[Risk] | list[list[Risk]]:
        """The risks of one batch, or of each of several."""
        return await self._classify(batches[0]) if len(batches) == 1 else await self._classify_all(batches)

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
