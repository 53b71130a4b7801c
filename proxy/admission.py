"""How many moderated requests may run at once, and how they end when the server stops."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from proxy.deadline import Deadline
from proxy.errors import SHUTTING_DOWN, TOO_LATE, TOO_MANY, ApiError, Fault

# For what still runs when the time to drain is over: to tell its client and clean up.
STOP_SECONDS = 2.0


class Admission:
    """Knows the moderated requests under way. What is too many is refused at once, not queued."""

    def __init__(self, limit: int, max_lag_seconds: float = math.inf) -> None:
        self.limit = limit
        self.max_lag_seconds = max_lag_seconds
        self.lag: Callable[[], float] = lambda: 0.0  # of the event loop, in seconds, for some time
        self._running: set[Deadline] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self.is_draining = False
        self.is_one_of_some = False  # of those that serve on this port not all do so yet

    @property
    def running(self) -> int:
        return len(self._running)

    def refusal(self) -> ApiError | None:
        """Why nobody is let in at the moment."""
        if self.running >= self.limit:
            return Fault(TOO_MANY, 503).api_error()
        # With more to do than it can, the loop would be later and later, for those who are here already, too.
        if self._running and self.lag() > self.max_lag_seconds:
            return Fault(TOO_LATE, 503).api_error()
        return None

    @contextmanager
    def enter(self) -> Iterator[None]:
        """For the running task. Raises ApiError."""
        if (refusal := self.refusal()) is not None:
            raise refusal
        stop = Deadline()
        self._running.add(stop)
        self._is_idle.clear()
        try:
            with stop.until(math.inf):
                yield
        except TimeoutError as exc:
            if not stop.has_passed:
                raise
            raise Fault(SHUTTING_DOWN, 503).api_error() from exc
        finally:
            self._running.discard(stop)
            if not self._running:
                self._is_idle.set()

    async def drain(self, seconds: float) -> None:
        """Let what runs finish for so long, then end it as an error."""
        self.is_draining = True
        for wait in (seconds, STOP_SECONDS):
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._is_idle.wait()
            for stop in self._running:
                stop.pass_now()
