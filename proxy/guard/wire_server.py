"""Doors behind sockets, for a guard that works on an event loop: each door has a link of its own.

`server` is the same for an engine that steps in a thread; both speak `wire`.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, cast

import msgspec

from proxy.guard.commands import Outcome
from proxy.guard.door import Link
from proxy.guard.protocol import GuardInfo
from proxy.guard.wire import (
    HELLO_SECONDS,
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
    MAX_UNSENT_BYTES,
    PULSE_SECONDS,
    FrameDecoder,
    FrameError,
    Pulse,
    Refusal,
    Welcome,
    answers_of,
    decode_commands,
    decode_hello,
    encode,
    frame,
    refusal_of,
)


class OwnLink(Link, Protocol):
    """A link that ends with its door."""

    def close(self) -> None: ...


class WireServer:
    """Made and used on one event loop."""

    def __init__(
        self, info: GuardInfo, vocabulary: int, begin: Callable[[Callable[[list[Outcome]], None]], OwnLink]
    ) -> None:
        """`begin` makes the link of a door, which is given what to call with its answers."""
        self.info, self.vocabulary, self.begin = info, vocabulary, begin
        self.peers: set[Peer] = set()
        self._servers: list[asyncio.Server] = []

    async def listen(self, listeners: Mapping[socket.socket, str]) -> None:
        """At sockets that listen already, each with the token that its peers must know ("" for none)."""
        loop = asyncio.get_running_loop()
        for listener, token in listeners.items():
            listener.setblocking(False)
            create = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await create(partial(Peer, self, token), sock=listener))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for peer in list(self.peers):
            peer.drop()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: WireServer, token: str) -> None:
        self._server, self._token = server, token
        self._decoder = FrameDecoder(MAX_HELLO_BYTES)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._link: OwnLink | None = None  # until it has said who it is
        self._outbox: list[Outcome] = []

    # `asyncio.Protocol`.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._server.peers.add(self)
        self._timer = asyncio.get_running_loop().call_later(HELLO_SECONDS, self.drop)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._decoder.feed(data):
                if self._link is None:
                    self._greet(body)
                else:
                    self._link.submit(decode_commands(body))
        except (FrameError, msgspec.DecodeError, msgspec.ValidationError):
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.peers.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.close()

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _greet(self, body: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return  # it has been refused
        reason = refusal_of(decode_hello(body), self._token)
        if reason:
            self._send(encode(Refusal(reason)))
            self._transport.close()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._decoder.limit = MAX_FRAME_BYTES
        self._link = self._server.begin(self._deliver)
        self._send(encode(Welcome(self._server.info, self._server.vocabulary, [])))
        self._pulse()

    def _pulse(self) -> None:
        assert self._link is not None  # greeted
        self._send(encode(Pulse(self._link.metrics())))
        self._timer = asyncio.get_running_loop().call_later(PULSE_SECONDS, self._pulse)

    def _deliver(self, outcomes: list[Outcome]) -> None:
        """What is answered within one turn of the loop travels together."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox += outcomes

    def _flush(self) -> None:
        outcomes, self._outbox = self._outbox, []
        self._send(encode(answers_of(outcomes)))

    def _send(self, body: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(frame(body))
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.drop()
