"""An engine behind sockets, for any number of doors: one loop reads, steps and writes, in one thread.

What arrives while a step runs waits in the sockets and is the next step's batch. A door that goes takes its
streams along; one that speaks something else is cut off, and nobody else notices.
"""

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable

import msgspec

from proxy.guard.black_box import BlackBox
from proxy.guard.commands import NUMBER_BITS, Cancel, Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.engine_loop import EngineLoop
from proxy.guard.protocol import GuardInfo
from proxy.guard.scheduler import Plan
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

RECEIVE_BYTES = 1 << 18
# Numbers of streams and tickets are the door's own; with its connection's number above them they are everyone's.
OWN = (1 << NUMBER_BITS) - 1


class Peer:
    """One connection."""

    def __init__(self, sock: socket.socket, number: int, token: str) -> None:
        self.sock, self.number, self.token = sock, number, token
        self.since = time.monotonic()
        self.door: int | None = None  # until it has said who it is
        self.decoder = FrameDecoder(MAX_HELLO_BYTES)
        self.unsent = bytearray()
        self.streams: set[int] = set()

    def globally(self, command: Command) -> Command:
        """The command in numbers that no other peer uses; keeps count of the peer's streams."""
        base = self.number << NUMBER_BITS
        match command:
            case Feed(ticket, stream, position, ids, role):
                return Feed(base | ticket, base | stream, position, ids, role)
            case Open(ticket, stream, ids, reads, role, owner, is_replay, is_alone):
                self.streams.add(stream)
                return Open(base | ticket, base | stream, ids, reads, role, owner, is_replay, is_alone)
            case Fork(stream, child, position):
                self.streams.add(child)
                return Fork(base | stream, base | child, position)
            case Cancel(stream, ticket):
                return Cancel(base | stream, base | ticket)
            case Close(stream):
                self.streams.discard(stream)
                return Close(base | stream)


class EngineServer:
    def __init__(
        self,
        loop: EngineLoop,
        info: GuardInfo,
        vocabulary: int,
        listeners: dict[socket.socket, str],
        box: BlackBox,
        suspects: dict[int, list[int]] | None = None,
    ) -> None:
        """`listeners` have a token each that peers must know ("" for none); `suspects` are of the last engine."""
        self._loop, self._info, self._vocabulary, self._box = loop, info, vocabulary, box
        self._tokens, self._suspects = listeners, suspects or {}
        self._selector = selectors.DefaultSelector()
        for listener in listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, listener)
        self._peers: dict[int, Peer] = {}
        self._commands: deque[Command] = deque()
        self._last_number = 0
        self._next_pulse = 0.0
        loop.engine.on_plan = self._note

    def serve(self, is_wanted: Callable[[], bool]) -> None:
        """Until `is_wanted`, asked at every turn, says no. Raises EngineDead."""
        while is_wanted():
            self.turn()

    def turn(self, idle_seconds: float = PULSE_SECONDS / 4) -> None:
        """Read what is there, step once, answer."""
        timeout = 0.0 if self._commands else self._loop.seconds_to_sleep(idle_seconds)
        for key, events in self._selector.select(timeout):
            if not isinstance(key.data, Peer):
                self._accept(key.data)
            elif events & selectors.EVENT_WRITE and not self._flush(key.data):
                continue
            elif events & selectors.EVENT_READ:
                self._read(key.data)
        self._deliver(self._loop.turn(self._commands))
        now = time.monotonic()
        self._box.beat(self._loop.engine.steps)
        if now >= self._next_pulse:
            self._next_pulse = now + PULSE_SECONDS
            self._pulse(now)

    def close(self) -> None:
        for peer in list(self._peers.values()):
            self._drop(peer)
        self._selector.close()

    def _note(self, plan: Plan | None) -> None:
        chunks = plan.chunks if plan is not None else []
        self._box.note((self._door_of(chunk.sequence.id), chunk.sequence.id & OWN) for chunk in chunks)

    def _door_of(self, number: int) -> int:
        peer = self._peers.get(number >> NUMBER_BITS)
        return peer.door or 0 if peer is not None else 0

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # it left again, or there are no descriptors; the next one may have more luck
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._last_number += 1
        peer = Peer(sock, self._last_number, self._tokens[listener])
        self._peers[peer.number] = peer
        self._selector.register(sock, selectors.EVENT_READ, peer)

    def _read(self, peer: Peer) -> None:
        try:
            data = peer.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        try:
            for body in peer.decoder.feed(data):
                if peer.door is None:
                    self._greet(peer, body)
                else:
                    self._commands += map(peer.globally, decode_commands(body))
        except (FrameError, msgspec.DecodeError, msgspec.ValidationError):
            self._drop(peer)

    def _greet(self, peer: Peer, body: bytes) -> None:
        hello = decode_hello(body)
        reason = refusal_of(hello, peer.token)
        if not reason:
            peer.door = hello.door
            peer.decoder.limit = MAX_FRAME_BYTES
            suspects = self._suspects.pop(hello.door, [])
            self._send(peer, encode(Welcome(self._info, self._vocabulary, suspects)))
            return
        self._send(peer, encode(Refusal(reason)))
        self._drop(peer)

    def _deliver(self, outcomes: list[Outcome]) -> None:
        shares: dict[int, list[Outcome]] = {}
        for outcome in outcomes:
            own = Outcome(outcome.ticket & OWN, outcome.rows, outcome.error)
            shares.setdefault(outcome.ticket >> NUMBER_BITS, []).append(own)
        for number, share in shares.items():
            peer = self._peers.get(number)
            if peer is not None:
                self._send(peer, encode(answers_of(share)))

    def _pulse(self, now: float) -> None:
        body = encode(Pulse(self._loop.engine.metrics()))
        for peer in list(self._peers.values()):
            if peer.door is not None:
                self._send(peer, body)
            elif now - peer.since > HELLO_SECONDS:
                self._drop(peer)

    def _send(self, peer: Peer, body: bytes) -> None:
        was_empty = not peer.unsent
        peer.unsent += frame(body)
        if was_empty:
            self._flush(peer)
        if len(peer.unsent) > MAX_UNSENT_BYTES:
            self._drop(peer)

    def _flush(self, peer: Peer) -> bool:
        """Send what the socket takes. False when the peer is gone."""
        try:
            sent = peer.sock.send(peer.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(peer)
            return False
        del peer.unsent[:sent]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.unsent else 0)
        if self._selector.get_key(peer.sock).events != wanted:
            self._selector.modify(peer.sock, wanted, peer)
        return True

    def _drop(self, peer: Peer) -> None:
        if self._peers.pop(peer.number, None) is None:
            return
        self._selector.unregister(peer.sock)
        peer.sock.close()
        base = peer.number << NUMBER_BITS
        self._commands += [Close(base | stream) for stream in peer.streams]
