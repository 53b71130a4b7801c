"""Talk to the LLM API. Its failures become faults and errors of ours."""

import asyncio
import math
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
from yarl import URL

from proxy.deadline import Deadline
from proxy.errors import (
    TOO_LONG,
    UPSTREAM_BROKE,
    UPSTREAM_ODD,
    UPSTREAM_SILENT,
    UPSTREAM_SLOW,
    UPSTREAM_UNREACHABLE,
    Fault,
)
from proxy.settings import Dialect, UpstreamSettings
from proxy.upload import Upload
from proxy.upstream_headers import (
    HEADER_VALUE,
    KEY_HEADERS,
    credentials,
    moved_key,
    request_headers,
    response_headers,
)

# What the paths of a bare host begin with.
PREFIXES: Mapping[Dialect, str] = {"openai": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}
# What one read returns at the most: the event loop reads, tokenizes and encodes it in a few milliseconds.
MAX_READ_BYTES = 16 << 10
# What one write takes at the most.
MAX_WRITE_BYTES = 64 << 10
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
    _response: aiohttp.ClientResponse
    _break: BaseException | None = None

    @property
    def content_type(self) -> str:
        return self._response.content_type

    @property
    def media_type(self) -> str:
        """The content type with its parameters."""
        given = self._response.headers.get("content-type", "")
        return given if HEADER_VALUE.fullmatch(given) else "application/octet-stream"

    @property
    def length(self) -> int | None:
        """Of the body as it is read, where that is known."""
        return None if "content-encoding" in self._response.headers else self._response.content_length

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Safe to cancel and call again. Raises Fault."""
        content = self._response.content
        if self._break is None and (found := content.exception()) is not None:
            # aiohttp would withhold what came before the break, and the answer may be complete in it.
            self._break = found
            content.set_exception(None)  # type: ignore[arg-type]
        try:
            if self._break is None:
                return await content.read(MAX_READ_BYTES)
            if rest := content.read_nowait(MAX_READ_BYTES):
                return rest
            raise self._break
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise Fault(UPSTREAM_BROKE, 502, type(exc).__name__) from exc

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
        with suppress(Fault, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self.read()

    def close(self) -> None:
        """Give the connection up: what we did not read must not meet the next request."""
        self._response.close()


class Upstream:
    """One LLM API behind one base URL."""

    def __init__(
        self, session: aiohttp.ClientSession, settings: UpstreamSettings, *, takes_client_key: bool = True
    ) -> None:
        """`takes_client_key`: forward the client's own credential, where there is no key of ours."""
        if settings.base_url is None:
            raise ValueError("an upstream needs a base URL")
        self.settings = settings
        self.name = settings.name
        self.own_key = settings.api_key.get_secret_value() if settings.api_key is not None else None
        self._takes_client_key = takes_client_key
        self._session = session
        base, _, self._query = settings.base_url.partition("?")
        url = URL(base, encoded=True)
        # A bare host gets its dialect's usual prefix; any path is taken as the whole prefix, as the SDKs do.
        self._base = base.rstrip("/") + (PREFIXES[settings.dialect] if url.path in ("", "/") else "")
        self._proxy = _proxy_for(url)
        self._is_azure = (url.host or "").endswith(".azure.com")

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
        seconds = self.settings.first_byte_seconds
        try:
            async with asyncio.timeout(seconds) as deadline:
                response = await self._session.request(
                    method,
                    self.url(path, query),
                    data=body.chunks(partial(_wait, deadline), seconds) if isinstance(body, Upload) else _sent(body),
                    headers=self._headers(headers, key_header, body, moves_key=moves_key),
                    allow_redirects=False,
                    proxy=self._proxy,
                )
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            is_slow = isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ConnectionTimeoutError)
            if is_slow:
                raise Fault(UPSTREAM_SLOW, 504, type(exc).__name__) from exc
            raise Fault(UPSTREAM_UNREACHABLE, 502, type(exc).__name__) from exc
        if not 200 <= response.status <= 599 or 300 <= response.status <= 399:
            response.close()
            raise Fault(UPSTREAM_ODD, 502, f"status {response.status}")
        return UpstreamResponse(response.status, response_headers(response.headers), response)

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
        headers = request_headers(client, self.settings.dialect)
        if body is not None:
            json = {"content-type": "application/json"}
            headers |= body.headers if isinstance(body, Upload) else json | {"content-length": str(len(body))}
        key_header = key_header or KEY_HEADERS[self.settings.dialect]
        if self.own_key is not None:
            name = "api-key" if self._is_azure else key_header
            headers[name] = f"Bearer {self.own_key}" if name == "authorization" else self.own_key
        elif self._takes_client_key:
            headers |= moved_key(client, key_header) if moves_key else credentials(client)
        return headers


def _sent(body: bytes | None) -> bytes | AsyncIterator[bytes] | None:
    """A large body goes in parts: all at once it would be copied in one turn of the event loop."""
    return body if body is None or len(body) <= MAX_WRITE_BYTES else _parts(body)


async def _parts(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), MAX_WRITE_BYTES):
        yield body[start : start + MAX_WRITE_BYTES]


def _wait(deadline: asyncio.Timeout, seconds: float | None) -> None:
    """While a client sends its body, the upstream is not late."""
    with suppress(RuntimeError):  # the answer is here already
        deadline.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


class _Connector(aiohttp.TCPConnector):
    """Reuses no connection on which something came that nobody asked for: it would answer the next request."""

    async def _get(self, *args: Any, **options: Any) -> Any:
        while (connection := await super()._get(*args, **options)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None


def open_session(settings: UpstreamSettings) -> aiohttp.ClientSession:
    """A session without the defaults that bite: no cookies, no 5-minute deadline, no pool of 100."""
    return aiohttp.ClientSession(
        connector=_Connector(limit=settings.max_connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=settings.connect_seconds),
        max_line_size=8190,
        max_field_size=16 << 10,
    )


class Pulse:
    """Signs of life for a client that has got nothing for `seconds`, whatever the upstream sends us meanwhile."""

    def __init__(self, seconds: float, beat: Callable[[], Awaitable[None]] | None) -> None:
        self._seconds = seconds
        self._beat = beat
        self.due = 0.0
        self.put_off()

    def put_off(self) -> None:
        """The client has just got something."""
        self.due = asyncio.get_running_loop().time() + self._seconds if self._beat is not None else math.inf

    async def beat(self) -> None:
        if self._beat is not None:
            await self._beat()
        self.put_off()


def reader(
    response: UpstreamResponse, limits: UpstreamSettings, pulse: Pulse, deadline: Deadline
) -> Callable[[], Awaitable[bytes]]:
    """Reads under the idle and the total limit, with a pulse for the client meanwhile. They raise Fault.

    `deadline` is for the reads to use, and for the caller to close.
    """
    clock = asyncio.get_running_loop()
    last = clock.time() + limits.total_seconds

    async def read() -> bytes:
        now = clock.time()
        silent_until = now + limits.idle_seconds
        while True:
            # Asked before each read: one that finds bytes waiting never times out.
            if now >= last:
                raise Fault(TOO_LONG, 504)
            if now >= silent_until:
                raise Fault(UPSTREAM_SILENT, 504)
            if now >= pulse.due:
                await pulse.beat()
            try:
                with deadline.until(min(last, silent_until, pulse.due)):
                    return await response.read()
            except TimeoutError:
                now = clock.time()

    return read


def _proxy_for(url: URL) -> str | None:
    """HTTPS_PROXY and its kin; read here because aiohttp's own reading takes passwords from ~/.netrc too."""
    if urllib.request.proxy_bypass(f"{url.host}:{url.port}"):
        return None
    return urllib.request.getproxies().get(url.scheme)
