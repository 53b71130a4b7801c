"""The connections to one upstream: how many there may be, and which of them serve again."""

import asyncio

from proxy.errors import UPSTREAM_BUSY, UPSTREAM_UNCONNECTED
from proxy.upstream_connection import UpstreamConnection
from proxy.upstream_route import Route


class ConnectTimeout(ConnectionError):
    """No connection within the limit: the upstream cannot be reached."""

    failure, status = UPSTREAM_UNCONNECTED, 502


class PoolFull(ConnectTimeout):
    """None of ours became free within the limit."""

    failure, status = UPSTREAM_BUSY, 503


class Pool:
    """`take` a connection, and `give_back` each that was taken. Each who has it closes it."""

    def __init__(self, route: Route, limit: int, connect_seconds: float, keep_seconds: float) -> None:
        """`keep_seconds`: servers close what rests, and a request that meets the close is lost. So no connection is
        used again that has rested for longer.
        """
        self.route = route
        self._keep_seconds = keep_seconds
        self._connect_seconds = connect_seconds
        self._room = asyncio.Semaphore(limit)
        self._idle: list[tuple[float, UpstreamConnection]] = []  # since when; the newest last
        self._taken: set[UpstreamConnection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._holders = 1

    @property
    def is_closed(self) -> bool:
        return not self._holders

    def share(self) -> "Pool":
        """For one more who will close it."""
        self._holders += 1
        return self

    def close(self) -> None:
        """The last one's ends all connections."""
        self._holders -= 1
        if self._holders:
            return
        for connection in [*self._taken, *(connection for _, connection in self._idle)]:
            connection.abort()
        self._idle.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def take(self) -> UpstreamConnection:
        """An idle connection or a new one. Raises OSError, also where the wait is too long, and ValueError."""
        if not self._room.locked() and (connection := self._reused()):
            await self._room.acquire()  # at once: no timer for what needs no time
            self._taken.add(connection)
            return connection
        reason: type[ConnectTimeout] = PoolFull
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._room.acquire()
                reason = ConnectTimeout
                try:
                    connection = self._reused() or await self.route.connect()
                except BaseException:
                    self._room.release()
                    raise
        except TimeoutError as exc:
            raise reason("no connection within the limit") from exc
        self._taken.add(connection)
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        """After an exchange, however it ended. Safe to call twice."""
        if connection not in self._taken:
            return
        self._taken.remove(connection)
        self._room.release()
        if not connection.is_clean:
            connection.abort()
            return
        connection.end()
        loop = asyncio.get_running_loop()
        self._idle.append((loop.time(), connection))
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._keep_seconds, self._sweep)

    def _reused(self) -> UpstreamConnection | None:
        oldest = asyncio.get_running_loop().time() - self._keep_seconds
        while self._idle:
            since, connection = self._idle.pop()
            if connection.is_open and since > oldest:
                return connection
            connection.abort()
        return None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = None
        while self._idle and self._idle[0][0] <= loop.time() - self._keep_seconds:
            self._idle.pop(0)[1].abort()
        if self._idle:
            self._sweeper = loop.call_at(self._idle[0][0] + self._keep_seconds, self._sweep)
