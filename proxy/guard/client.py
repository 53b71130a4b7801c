"""The link to an engine in another process: one connection, made again whenever it breaks."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from proxy.guard.commands import Command
from proxy.guard.door import GuardDoor
from proxy.guard.metrics import Metrics
from proxy.guard.protocol import GuardUnavailable
from proxy.guard.wire import (
    SILENT_SECONDS,
    VERSION,
    Answers,
    FrameDecoder,
    FrameError,
    Hello,
    Refusal,
    decode_greeting,
    decode_news,
    encode,
    frame,
    outcomes_of,
)

# Between two attempts to connect: soon at first, since an engine is replaced in milliseconds.
RETRY_SECONDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True, slots=True)
class Address:
    """A unix socket's path, or host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


class EngineClient:
    """Keeps a door connected to the engine at an address. Use as an async context manager."""

    def __init__(
        self,
        door: GuardDoor,
        address: Address,
        token: str = "",
        *,
        patience_seconds: float | None = None,
        silent_seconds: float | None = None,
    ) -> None:
        """`patience_seconds`: an engine that was there and is gone for longer fails the door for good, and one that
        nobody listens for at once; None: it is waited for. `silent_seconds` is how long a living one may say nothing.
        """
        self._door, self._address, self._token = door, address, token
        self._patience, self._silent = patience_seconds, silent_seconds
        self._giving_up: asyncio.TimerHandle | None = None
        # Names this door to every engine that comes: streams are told apart by it after a crash.
        self._identity = random.SystemRandom().getrandbits(62)
        self._task: asyncio.Task[None] | None = None
        self._greeted = asyncio.Event()
        self.refusal: str | None = None  # why the engine does not want us; then there is no use in trying again

    def start(self) -> None:
        # This task lives as long as the client: `close` ends it.
        self._task = asyncio.get_running_loop().create_task(self._run(), name="guard-client")

    async def greeted(self, seconds: float) -> None:
        """Wait for the first engine. Raises GuardUnavailable."""
        try:
            async with asyncio.timeout(seconds):
                await self._greeted.wait()
        except TimeoutError as exc:
            raise GuardUnavailable(f"no guard engine answers at {self._address}") from exc
        if self.refusal is not None:
            raise GuardUnavailable(f"the guard engine at {self._address} refused: {self.refusal}")

    async def close(self) -> None:
        self._be_patient()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        failures = 0
        while self.refusal is None:
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            connection = Connection(self._on_greeting, self._silent)
            try:
                transport = await self._connect(connection)
            except OSError:
                failures += 1
                if self._giving_up is not None:
                    self._give_up()
                continue
            try:
                transport.write(frame(encode(Hello(VERSION, self._identity, self._token))))
                await connection.lost
                # One that ends without a greeting is no progress.
                failures = 0 if connection.is_greeted else failures + 1
            finally:
                transport.abort()
                if connection.is_greeted:
                    self._door.disconnected()
                    self._begin_to_give_up()

    def _begin_to_give_up(self) -> None:
        if self._patience is not None and self._giving_up is None:
            self._giving_up = asyncio.get_running_loop().call_later(self._patience, self._give_up)

    def _be_patient(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _give_up(self) -> None:
        self._be_patient()
        self.refusal = "it is gone"
        self._door.failed(GuardUnavailable(f"the guard engine at {self._address} is gone"))

    async def _connect(self, connection: "Connection") -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        if self._address.path:
            transport, _ = await loop.create_unix_connection(lambda: connection, self._address.path)
        else:
            transport, _ = await loop.create_connection(lambda: connection, self._address.host, self._address.port)
        return transport

    def _on_greeting(self, connection: "Connection", body: bytes) -> None:
        greeting = decode_greeting(body)
        self._greeted.set()
        if isinstance(greeting, Refusal):
            self.refusal = greeting.reason
            self._door.failed(GuardUnavailable(f"the guard engine refused: {greeting.reason}"))
            return
        self._be_patient()
        connection.receive = self._door.receive
        self._door.connected(connection, greeting.info, greeting.vocabulary, greeting.suspects)


class Connection(asyncio.Protocol):
    """One connection; a `door.Link` once the engine has greeted."""

    def __init__(self, on_greeting: Callable[["Connection", bytes], None], silent_seconds: float | None = None) -> None:
        self._silent = SILENT_SECONDS if silent_seconds is None else silent_seconds
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.receive: Callable[[Any], None] | None = None
        self._on_greeting = on_greeting
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._metrics = Metrics()
        self._heard_at = 0.0
        self._watch: asyncio.TimerHandle | None = None

    @property
    def is_greeted(self) -> bool:
        return self.receive is not None

    # `door.Link`.

    def submit(self, commands: list[Command]) -> None:
        assert self._transport is not None  # greeted, so connected
        if self._transport.is_closing():
            return  # all of it is asked again of the next engine
        try:
            self._transport.write(frame(encode(commands)))
        except FrameError:
            for command in commands:
                self._transport.write(frame(encode([command])))

    def metrics(self) -> Metrics:
        return self._metrics

    # `asyncio.Protocol`.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._listen()

    def data_received(self, data: bytes) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        try:
            for body in self._decoder.feed(data):
                self._take(body)
        except (FrameError, msgspec.DecodeError, msgspec.ValidationError):
            self._break()  # what follows cannot be trusted; a new connection asks everything again

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    def _take(self, body: bytes) -> None:
        if self.receive is None:
            self._on_greeting(self, body)
            return
        news = decode_news(body)
        if isinstance(news, Answers):
            self.receive(outcomes_of(news))
        else:
            self._metrics = news.metrics

    def _listen(self) -> None:
        """An engine says every second that it lives; one that does not is as good as dead."""
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        self._watch = loop.call_later(self._silent, self._check_silence)

    def _check_silence(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._heard_at + self._silent - loop.time()
        if left <= 0:
            self._break()
        else:
            self._watch = loop.call_later(left, self._check_silence)

    def _break(self) -> None:
        if self._transport is not None:
            self._transport.abort()
