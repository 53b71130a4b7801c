"""A client that is only a socket, to send what no library sends and to see what every library hides."""

import asyncio
import json
import secrets
import select
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

CHAT_PATH = "/v1/chat/completions"
# Seconds. What waits for nothing is over in far less, on a machine that has much else to do too; what a test would
# wait for if it were not is an hour away.
PATIENCE_SECONDS = 20.0
ASK: Mapping[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def http_request(
    body: bytes | Mapping[str, Any] | None = None,
    *,
    method: str = "POST",
    path: str = CHAT_PATH,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> bytes:
    """A request as bytes. Without a body it is a chat request; `fields` are added to that."""
    if body is None:
        body = {**ASK, **fields}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    known = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(data))}
    lines = [f"{name}: {value}" for name, value in (known | dict(headers or {})).items() if value]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + data


@dataclass
class Reply:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_complete: bool = False  # did the body end as its framing says it must?
    raw: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


def read_reply(raw: bytes) -> Reply:
    """The first response in `raw`, as far as it goes."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if not raw:
        return Reply()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    reply = Reply(int(lines[0].split()[1]), headers, raw=raw)
    if headers.get("transfer-encoding") != "chunked":
        length = int(headers.get("content-length", len(rest)))
        reply.body, reply.is_complete = rest[:length], len(rest) >= length
        return reply
    while rest:
        size, mark, rest = rest.partition(b"\r\n")
        if not mark:
            return reply  # broken off within a chunk's size
        count = int(size, 16)
        if count == 0:
            reply.is_complete = rest == b"\r\n"
            return reply
        reply.body += rest[:count]
        rest = rest[count + 2 :]
    return reply


class Client:
    """One connection. `received` is all that came so far."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.received = b""

    @property
    def port(self) -> int:
        """Our own."""
        port: int = self._writer.get_extra_info("sockname")[1]
        return port

    @property
    def has_ended(self) -> bool:
        """Whether the server has closed: looked for as urllib3 and httpx do before they use a connection again."""
        found: socket.socket = self._writer.get_extra_info("socket")
        is_gone = self._reader.at_eof() or self._writer.is_closing()
        return is_gone or bool(select.select([found.fileno()], [], [], 0)[0])

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read_until(self, mark: bytes) -> None:
        while mark not in self.received:
            more = await self._reader.read(1 << 16)
            assert more, f"closed before {mark!r}: {self.received!r}"
            self.received += more

    async def reply(self) -> Reply:
        """The reply, read to its end or to the end of the connection."""
        while not read_reply(self.received).is_complete or b"\r\n\r\n" not in self.received:
            if not (more := await self._more()):
                break
            self.received += more
        return read_reply(self.received)

    async def closed(self) -> bytes:
        """All that comes until the server closes."""
        while more := await self._more():
            self.received += more
        return self.received

    async def more(self) -> bytes:
        """What comes next, b"" at the end."""
        more = await self._more()
        self.received += more
        return more

    def leave(self, *, reset: bool = False) -> None:
        """Close with FIN, or with RST."""
        found: socket.socket = self._writer.get_extra_info("socket")
        if reset:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort() if reset else self._writer.close()

    def shut_sending(self) -> None:
        self._writer.write_eof()

    async def _more(self) -> bytes:
        try:
            return await self._reader.read(1 << 16)
        except ConnectionError:
            return b""


@asynccontextmanager
async def connected(url: str, *, receive_buffer: int | None = None) -> AsyncIterator[Client]:
    parts = urlsplit(url)
    found = socket.socket()
    found.setblocking(False)
    if receive_buffer is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        await asyncio.get_running_loop().sock_connect(found, (parts.hostname, parts.port))
    except OSError:
        found.close()
        raise
    reader, writer = await asyncio.open_connection(sock=found, limit=1 << 16)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def ask(url: str, request: bytes | None = None, **fields: Any) -> Reply:
    """Send one request, read one reply."""
    async with asyncio.timeout(2 * PATIENCE_SECONDS), connected(url) as client:
        await client.send(http_request(**fields) if request is None else request)
        return await client.reply()


def free_port() -> int:
    """Below those that the kernel gives to whoever names none, so that nobody is given it before it is used."""
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


@contextmanager
def timed() -> Iterator[None]:
    """Fails where the block waits for something, if only for its deadline."""
    clock = asyncio.get_running_loop()
    begin = clock.time()
    yield
    assert clock.time() - begin <= PATIENCE_SECONDS
