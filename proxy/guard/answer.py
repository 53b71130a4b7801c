"""From callbacks to what can be awaited, and back."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from proxy.guard.protocol import GuardStream, GuardUnavailable
from proxy.risk import Risk

T = TypeVar("T")


class Answer(asyncio.Future[T]):
    """What is heard of a question. Who cancels it takes the question back. A future, and no task."""

    def __init__(self, give_up: Callable[[], object]) -> None:
        super().__init__()
        self._give_up = give_up

    def hear(self, found: T | Exception) -> None:
        if self.done():
            return  # what was given up
        if isinstance(found, Exception):
            self.set_exception(found)
        else:
            self.set_result(found)

    def cancel(self, msg: Any = None) -> bool:
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self._give_up()
        return is_cancelled


def classify(stream: GuardStream, position: int, ids: Sequence[int]) -> Answer[list[Risk]]:
    """`GuardStream.ask`, to be awaited. Raises GuardError, and ValueError for what cannot be asked."""
    answer = Answer[list[Risk]](stream.give_up)
    stream.ask(position, ids, answer.hear)
    return answer


class Later(Generic[T]):
    """A coroutine, and who hears what comes of it: once, later, unless it is given up before."""

    def __init__(self, work: Coroutine[Any, Any, T], heard: Callable[[T | Exception], None]) -> None:
        self._heard: Callable[[T | Exception], None] | None = heard
        # It ends with the work, or with who has asked: `give_up` ends it. Then it is let go: its exception holds those
        # who hold this.
        self._task: asyncio.Task[T] | None = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._done)

    def give_up(self) -> None:
        self._heard = None
        if self._task is not None:
            self._task.cancel()

    def _done(self, task: "asyncio.Task[T]") -> None:
        heard, self._heard, self._task = self._heard, None, None
        exc = GuardUnavailable("the question was cancelled") if task.cancelled() else task.exception()
        if heard is None:
            return
        assert exc is None or isinstance(exc, Exception)  # what else there is ends the event loop
        heard(task.result() if exc is None else exc)
