"""A time limit around an await that comes thousands of times in a stream and is hardly ever late.

`asyncio.timeout` sets a timer and takes it back each time. Here the timer stays: when it fires and the limit has
moved meanwhile, it is set anew. The end is the same: the await is cancelled, and TimeoutError raised in its place.
"""

import asyncio
import math
from types import TracebackType


class Deadline:
    """`with deadline.until(when): await ...`, as often as wanted, by one task at a time; `close` ends its timer."""

    __slots__ = ("_cancels", "_fires_at", "_loop", "_task", "_timer", "_when", "has_passed")

    def __init__(self) -> None:
        """Raises RuntimeError without a running loop."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = self._when = math.inf
        self._task: asyncio.Task[object] | None = None
        self._cancels = 0  # of the task, others' own
        self.has_passed = False  # the newest block was ended by us

    def until(self, when: float) -> "Deadline":
        """Raise TimeoutError from the block at `when`, of the loop's clock; math.inf: never."""
        self._when = when
        return self

    def within(self, seconds: float) -> "Deadline":
        return self.until(self._loop.time() + seconds)

    def pass_now(self) -> None:
        """End the block that is under way, if there is one, as if its time had come."""
        if self._task is not None and not self.has_passed:
            self.has_passed = True
            self._task.cancel()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fires_at = math.inf

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)  # named: looking for it takes a system call
        assert task is not None
        assert self._task is None  # a block is not within another
        self._task, self._cancels, self.has_passed = task, task.cancelling(), False
        if self._when < self._fires_at:
            self._set(self._when)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        task, self._task = self._task, None
        if self.has_passed:
            assert task is not None  # set on entering
            # As asyncio.timeout does: a task that others cancelled too stays cancelled.
            if task.uncancel() <= self._cancels and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from exc

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._fires_at = self._loop.call_at(when, self._fire), when

    def _fire(self) -> None:
        self._timer, self._fires_at = None, math.inf
        if self._task is None:
            return  # nobody waits; who comes next sets it anew
        if self._loop.time() < self._when:
            self._set(self._when)
        else:
            self.pass_now()
