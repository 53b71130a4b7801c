"""A request's body on its way to the upstream: as it comes, as it is, no faster than the upstream takes it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress

from aiohttp import web

from proxy.errors import ApiError
from proxy.limits import Limit
from proxy.settings import PassthroughSettings
from proxy.upstream_connection import UpstreamConnection

# What one write takes at the most.
MAX_PART_BYTES = 64 << 10
TOO_SLOW = ApiError(408, "The body did not arrive in time.", code="request_timeout", limit=Limit.UPLOAD_IDLE)


class Upload:
    """`error` says why it ended early, where that is the client's doing."""

    def __init__(self, request: web.Request, limits: PassthroughSettings, total_seconds: float) -> None:
        """Raises ApiError (413, 415)."""
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            code = "unsupported_content_encoding"
            raise ApiError(415, "Send the body without a content-encoding.", code=code)
        self._limit = limits.max_upload_bytes
        self._idle_seconds = limits.idle_seconds
        self._deadline = asyncio.get_running_loop().time() + total_seconds
        self._content = request.content
        self.headers = {
            name: request.headers[name] for name in ("content-type", "content-length") if name in request.headers
        }
        self.is_sized = "content-length" in self.headers
        self.size = 0
        self.error: ApiError | None = None
        if (request.content_length or 0) > self._limit:
            raise self._too_large()

    async def chunks(self, wait: Callable[[float | None], None], seconds: float) -> AsyncIterator[bytes]:
        """`wait` is told when the upstream is waited for, and how long, or that it is not (None)."""
        try:
            while True:
                wait(None)  # it is the client's turn
                chunk = await self._next()
                wait(seconds)
                if not chunk:
                    return
                yield chunk
        except ApiError as exc:
            self.error = exc
            raise

    async def _next(self) -> bytes:
        clock = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(self._deadline, clock.time() + self._idle_seconds)):
                chunk = await self._content.readany()
        except TimeoutError as exc:
            raise TOO_SLOW from exc
        except web.RequestPayloadError as exc:
            raise ApiError(400, "The body cannot be read.", code="invalid_body") from exc
        self.size += len(chunk)
        if self.size > self._limit:
            raise self._too_large()
        return chunk

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body exceeds {self._limit} bytes.", code="request_too_large", limit=Limit.UPLOAD)


def wait(deadline: asyncio.Timeout, seconds: float | None) -> None:
    """While a client sends its body, the upstream is not late."""
    with suppress(RuntimeError):  # the answer is here already
        deadline.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


async def parts(body: bytes) -> AsyncIterator[bytes]:
    """A large body of ours: all at once it would be copied in one turn of the event loop."""
    for start in range(0, len(body), MAX_PART_BYTES):
        yield body[start : start + MAX_PART_BYTES]


async def send(chunks: AsyncIterator[bytes], connection: UpstreamConnection, *, is_chunked: bool) -> None:
    """To the upstream, no faster than it takes it. Raises what `chunks` raises, and BrokenAnswer."""
    async for chunk in chunks:
        connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if is_chunked else chunk)
        if (room := connection.room()) is not None:
            await room
    if is_chunked:
        connection.write(b"0\r\n\r\n")


def headers_of(body: bytes | Upload | None) -> Mapping[str, str]:
    """What describes the body of a request to an upstream."""
    if body is None:
        return {}
    if isinstance(body, bytes):
        return {"content-type": "application/json", "content-length": str(len(body))}
    return body.headers if body.is_sized else {**body.headers, "transfer-encoding": "chunked"}
