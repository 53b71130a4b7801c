"""The body of an upstream's answer, as a driver takes it: what breaks becomes a fault of ours.

No coroutines, so that it can be compiled: it is asked for each chunk.
"""

import asyncio
from collections.abc import Callable

from proxy.errors import UPSTREAM_BROKE, BrokenAnswer, Fault
from proxy.upstream_connection import UpstreamConnection


class UpstreamBody:
    """A `driver.Source`."""

    def __init__(self, connection: UpstreamConnection) -> None:
        self._connection: UpstreamConnection | None = connection  # None once closed: it may serve another by then

    def take(self) -> bytes | None:
        """The next bytes; b"" at the end, None where none have come. Raises Fault."""
        connection = self._connection
        try:
            if connection is None:
                raise BrokenAnswer("the answer was closed")
            return connection.take()
        except OSError as exc:
            raise Fault(UPSTREAM_BROKE, 502, type(exc).__name__) from exc

    def listen(self, more: Callable[[], None] | None) -> None:
        """`more` is called whenever `take` may have something new to say; None: nobody listens any more."""
        if self._connection is not None:
            self._connection.on_more = more

    def more(self) -> "asyncio.Future[None]":
        """Await it until `take` may have something new to say. For one at a time, while nobody listens."""
        assert self._connection is not None  # else `take` had raised
        return self._connection.more()

    def arrived(self) -> float:
        """When the oldest byte of what was taken last had come, by the monotonic clock."""
        return self._connection.arrived if self._connection is not None else 0.0

    @property
    def has_all(self) -> bool:
        """The answer has come to its end, whatever of it is still to be taken."""
        return self._connection is not None and self._connection.is_clean

    def close(self) -> UpstreamConnection | None:
        """The connection, for whoever has to give it back; None where that was done."""
        connection, self._connection = self._connection, None
        return connection
