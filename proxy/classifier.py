"""The guard streams of one response: the prompt's, and a fork of it for each view of each channel."""

import math
import sys
from collections.abc import Sequence

from proxy.conversation import answer_frame
from proxy.deadline import Deadline
from proxy.guard.answer import Answer
from proxy.guard.protocol import GuardStream
from proxy.inquiry import Inquiry, Lags, Opened, late
from proxy.risk import Risk
from proxy.structs import Batch


class Forks:
    """Of the guard streams of prompts: one for each view of each channel.

    The inquiry asks for them. It does not ask the classifier, which holds it: a circle would stay until garbage
    is looked for among all streams, and meanwhile none of them moves.
    """

    def __init__(self, prompt: GuardStream) -> None:
        self._prompts = [prompt]
        self._choices_each = sys.maxsize

    def share(self, others: Sequence[GuardStream], choices: int) -> None:
        self._prompts += others
        self._choices_each = choices // len(self._prompts)

    def open(self, batch: Batch) -> Opened:
        frame = answer_frame(batch.kind).ids
        fork = self._prompts[batch.key.choice // self._choices_each].fork()
        return fork, frame, fork.position + len(frame)


class Classifier:
    """Feeds batches to their guard streams. Use as an async context manager: leaving frees them all."""

    def __init__(self, prompt: GuardStream, verdict_seconds: float | None = None) -> None:
        self._prompt = prompt
        self._forks = Forks(prompt)
        self.verdict_seconds = math.inf if verdict_seconds is None else verdict_seconds
        self._deadline = Deadline()
        self.inquiry = Inquiry(self._forks.open)
        self._streams = self.inquiry.streams

    @property
    def lags(self) -> Lags:
        return self.inquiry.lags

    @property
    def slides(self) -> int:
        """How often the guard's window slid over a text that had outgrown it."""
        return sum(stream.slides for stream, *_ in self._streams.values())

    async def __aenter__(self) -> "Classifier":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._deadline.close()
        failure: BaseException | None = None
        for stream in (*(opened[0] for opened in self._streams.values()), self._prompt):
            try:
                await stream.close()
            except BaseException as exc:  # all are closed, whatever one of them raises, a cancellation with it
                failure = exc
        if failure is not None:
            raise failure

    def share(self, others: Sequence["Classifier"], choices: int) -> None:
        """Take the prompts of others as well: `choices` are shared out among all, evenly and in order.

        The others keep their own prompts open, and must outlive this one.
        """
        self._forks.share([other._prompt for other in others], choices)

    async def classify(self, batches: Sequence[Batch]) -> list[list[Risk]]:
        """One risk for each token of each batch. Raises GuardError."""
        told = Answer[list[list[Risk]]](self.inquiry.give_up)
        self.inquiry.put(batches, told.hear)
        try:
            # The guard keeps this deadline itself, and may be what hangs.
            with self._deadline.within(self.verdict_seconds):
                return await told
        except TimeoutError as exc:
            raise late() from exc
