"""Talk to the LLM API. Its failures become faults and errors of ours."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from yarl import URL

from proxy.answer_parser import Head
from proxy.deadline import Deadline
from proxy.errors import (
    TOO_LONG,
    UPSTREAM_ODD,
    UPSTREAM_SILENT,
    UPSTREAM_SLOW,
    UPSTREAM_UNREACHABLE,
    Fault,
)
from proxy.settings import Dialect, UpstreamSettings
from proxy.upload import MAX_PART_BYTES, Upload, headers_of, parts, send, wait
from proxy.upstream_body import UpstreamBody
from proxy.upstream_connection import UpstreamConnection
from proxy.upstream_headers import (
    HEADER_VALUE,
    KEY_HEADERS,
    credentials,
    moved_key,
    request_headers,
    response_headers,
)
from proxy.upstream_pool import ConnectTimeout, Pool
from proxy.upstream_route import Route

# What the paths of a bare host begin with.
PREFIXES: Mapping[Dialect, str] = {"openai": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}
# Where the client says nothing of the kind. Some APIs turn away who has no name.
SENT_HEADERS: Mapping[str, str] = {"accept": "*/*", "user-agent": "weir"}
CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# An error body is read for its code, not for its length, and it comes at once or is not worth waiting for.
MAX_ERROR_BYTES = 64 << 10
ERROR_SECONDS = 5.0
# An upstream that has said its last event ends the body at once: then the connection can serve again.
END_SECONDS = 0.1


@dataclass(slots=True)
class UpstreamResponse:
    """The head of an answer, and its body as it arrives."""

    status: int
    headers: Mapping[str, str]  # those that may pass on
    body: UpstreamBody
    _head: Head
    _pool: Pool

    @property
    def content_type(self) -> str:
        return self._given_type.partition(";")[0].strip().lower() or "application/octet-stream"

    @property
    def media_type(self) -> str:
        """The content type with its parameters."""
        return self._given_type if HEADER_VALUE.fullmatch(self._given_type) else "application/octet-stream"

    @property
    def length(self) -> int | None:
        """Of the body as it is read, where that is known."""
        given = self._head.headers.get("content-length")
        return None if given is None or "content-encoding" in self._head.headers else int(given)

    @property
    def _given_type(self) -> str:
        return self._head.headers.get("content-type", "")

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Safe to cancel and call again. Raises Fault."""
        while (data := self.body.take()) is None:
            await self.body.more()
        return data

    async def read_error(self) -> bytes:
        """The body of an error answer, as far as it comes and is worth reading."""
        body = bytearray()
        with suppress(Fault, TimeoutError):
            async with asyncio.timeout(ERROR_SECONDS):
                while len(body) < MAX_ERROR_BYTES and (chunk := await self.read()):
                    body += chunk
        return bytes(body[:MAX_ERROR_BYTES])

    async def read_all(self, limit: int, seconds: float) -> bytes:
        """The whole body. Raises Fault, also where it is larger or later than allowed."""
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while chunk := await self.read():
                    body += chunk
                    if len(body) > limit:
                        raise Fault(UPSTREAM_ODD, 502, f"a body of more than {limit} bytes")
        except TimeoutError as exc:
            raise Fault(UPSTREAM_SILENT, 504) from exc
        return bytes(body)

    async def finish(self) -> None:
        """Wait for the end of a body that has said all. Where it does not come, `close` does the rest."""
        if self.body.has_all:
            return
        with suppress(Fault, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self.read()

    def close(self) -> None:
        """Give the connection back; where we have not read to the end, it serves no more. Safe to call twice."""
        connection = self.body.close()
        if connection is not None:
            self._pool.give_back(connection)


class Upstream:
    """One LLM API behind one base URL, and the connections to it; `close` ends them."""

    def __init__(self, settings: UpstreamSettings, *, takes_client_key: bool = True, pool: Pool | None = None) -> None:
        """`takes_client_key`: forward the client's own credential, where there is no key of ours.

        `pool`: its connections, where there are some already.
        """
        if settings.base_url is None:
            raise ValueError("an upstream needs a base URL")
        self.settings = settings
        self.name = settings.name
        self.own_key = settings.api_key.get_secret_value() if settings.api_key is not None else None
        self._takes_client_key = takes_client_key
        base, _, self._query = settings.base_url.partition("?")
        url = URL(base, encoded=True)
        # A bare host gets its dialect's usual prefix; any path is taken as the whole prefix, as the SDKs do.
        self._base = base.rstrip("/") + (PREFIXES[settings.dialect] if url.path in ("", "/") else "")
        self._host = url.host_port_subcomponent or ""
        self._is_azure = (url.host or "").endswith(".azure.com")
        self.pool = pool or Pool(
            Route(url.origin()), settings.max_connections, settings.connect_seconds, settings.keep_seconds
        )

    def close(self) -> None:
        self.pool.close()

    async def open(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        body: bytes | Upload | None = None,
        query: str = "",
        key_header: str | None = None,
        moves_key: bool = False,
    ) -> UpstreamResponse:
        """Send a request and wait for the head of its answer. Never retried. Raises Fault.

        `key_header`: where the endpoint wants a key of ours, if not where the upstream's dialect does.
        `moves_key`: the client's own goes there too, for the client speaks another dialect.
        """
        try:
            sent = self._headers(headers, key_header, body, moves_key=moves_key)
            connection, head = await self._exchange(self._request(method, self.url(path, query), sent), body)
        except ConnectTimeout as exc:
            raise Fault(exc.failure, exc.status, type(exc).__name__) from exc
        except (OSError, ValueError) as exc:
            if isinstance(exc, TimeoutError):
                raise Fault(UPSTREAM_SLOW, 504, type(exc).__name__) from exc
            raise Fault(UPSTREAM_UNREACHABLE, 502, type(exc).__name__) from exc
        response = UpstreamResponse(
            head.code, response_headers(head.headers), UpstreamBody(connection), head, self.pool
        )
        if not 200 <= head.code <= 599 or 300 <= head.code <= 399:
            response.close()
            raise Fault(UPSTREAM_ODD, 502, f"status {head.code}")
        return response

    async def _exchange(self, request: bytes, body: bytes | Upload | None) -> tuple[UpstreamConnection, Head]:
        """Raises OSError, ValueError."""
        seconds = self.settings.first_byte_seconds
        async with asyncio.timeout(seconds) as deadline:
            connection = await self.pool.take()
            try:
                if isinstance(body, Upload):
                    connection.send(request)
                    chunks = body.chunks(partial(wait, deadline), seconds)
                    connection.upload(send(chunks, connection, is_chunked=not body.is_sized))
                elif body is not None and len(body) > MAX_PART_BYTES:
                    connection.send(request)
                    connection.upload(send(parts(body), connection, is_chunked=False))
                else:
                    connection.send(request + (body or b""))
                return connection, await connection.head()
            except BaseException:
                self.pool.give_back(connection)
                raise

    def _request(self, method: str, url: URL, headers: Mapping[str, str]) -> bytes:
        """The head of a request as bytes. Raises ValueError for what would end a line early."""
        target = str(url) if self.pool.route.asks_by_url else url.raw_path_qs
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._host}"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        if " " in target or CONTROLS.search("".join(lines)):
            raise ValueError("a request line or a header that cannot be sent")
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")

    def url(self, path: str, query: str) -> URL:
        """`path` is ours, in characters that a URL takes ("/chat/completions"); queries are kept to the byte."""
        queries = "&".join(part for part in (self._query, query) if part)
        return URL(self._base + path + (f"?{queries}" if queries else ""), encoded=True)

    def _headers(
        self,
        client: Mapping[str, str],
        key_header: str | None = None,
        body: bytes | Upload | None = None,
        *,
        moves_key: bool = False,
    ) -> dict[str, str]:
        headers = {**SENT_HEADERS, **request_headers(client, self.settings.dialect), **self.pool.route.headers}
        headers.update(headers_of(body))
        key_header = key_header or KEY_HEADERS[self.settings.dialect]
        if self.own_key is not None:
            name = "api-key" if self._is_azure else key_header
            headers[name] = f"Bearer {self.own_key}" if name == "authorization" else self.own_key
        elif self._takes_client_key:
            headers |= moved_key(client, key_header) if moves_key else credentials(client)
        return headers


def reader(response: UpstreamResponse, limits: UpstreamSettings, deadline: Deadline) -> Callable[[], Awaitable[bytes]]:
    """Reads under the idle and the total limit, which raise Fault. `deadline` is for the caller to close."""
    clock = asyncio.get_running_loop()
    last = clock.time() + limits.total_seconds

    async def read() -> bytes:
        now = clock.time()
        if now >= last:  # one that finds bytes waiting never times out
            raise Fault(TOO_LONG, 504)
        try:
            with deadline.until(min(last, now + limits.idle_seconds)):
                return await response.read()
        except TimeoutError:
            raise Fault(TOO_LONG if clock.time() >= last else UPSTREAM_SILENT, 504) from None

    return read
