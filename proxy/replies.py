"""What the client of one moderated request gets, and what errors look like."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing

from aiohttp import web

from adapters.base import Failure
from proxy.admission import Admission
from proxy.client_writer import ClientWriter
from proxy.collected import Collected
from proxy.deadline import Deadline
from proxy.doors import error_body
from proxy.errors import GUARD_FAILED, SHUTTING_DOWN, ApiError, Fault, status_of
from proxy.exchange import Exchange
from proxy.records import Record, RequestOutcome, Scanned
from proxy.sse import HEARTBEAT
from proxy.stream import ModeratedStream, Outcome
from proxy.streamed import Streamed

STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


class Reply:
    """What the client of one request gets. Headers go out with the first byte, so an early failure has a status."""

    def __init__(self, request: web.Request, record: Record, send_seconds: float, admission: Admission) -> None:
        self._request = request
        self._record = record
        self._send_seconds = send_seconds
        self._admission = admission
        self._writer = ClientWriter(request, send_seconds)
        self._exchange: Exchange | None = None  # of an answer that is streamed
        self._response: web.StreamResponse | None = None  # once its headers are out
        self.is_told = False  # the whole answer has been written

    async def body(self, exchange: Exchange) -> web.StreamResponse:
        """An answer in one piece: nothing is sent before all of it is judged."""
        client = Collected()
        check(await exchange.run(client))
        self._record.status, self._record.first_byte_seconds = 200, self._record.elapsed()
        headers = exchange.passed_headers | weir_headers(self._record, exchange.scanned)
        return web.Response(body=b"".join(client.chunks), content_type="application/json", headers=headers)

    async def stream(self, exchange: Exchange) -> web.StreamResponse:
        """An answer as server-sent events."""
        self._exchange = exchange
        try:
            check(await exchange.run(Streamed(self._writer.chunks, self)))
            self.is_told = True
            await exchange.finish()
        except asyncio.CancelledError:
            # The server stops. If it is the client that left, this reaches nobody.
            await self._break(SHUTTING_DOWN)
            raise
        return self._begun()

    async def relay(
        self, status: int, headers: Mapping[str, str], read: Callable[[], Awaitable[bytes]]
    ) -> web.StreamResponse:
        """An answer as it comes, which nobody judges. What `read` raises comes out."""
        headers = dict(headers) | weir_headers(self._record, Scanned.NONE)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(self._request)
        self._response, self._record.status = response, status
        with closing(Deadline()) as deadline:
            while chunk := await read():
                try:
                    with deadline.within(self._send_seconds):
                        await response.write(chunk)
                except TimeoutError as exc:
                    raise self._writer.hang_up() from exc
        self.is_told = True
        self._record.outcome = RequestOutcome.COMPLETE
        return response

    # A `streamed.Answer`.

    def begin(self) -> None:
        self._record.first_byte_seconds = self._record.elapsed()
        self._begun()

    def beat(self) -> None:
        self._begun()
        self._writer.chunks.write(HEARTBEAT)

    def has_all(self) -> bool:
        return self._exchange is not None and self._exchange.is_over

    async def drain(self) -> None:
        await self._writer.drain()

    @property
    def has_hung_up(self) -> bool:
        """On a client that does not read."""
        return self._writer.has_hung_up

    def close(self) -> None:
        """Stop the timer, and break the circle of references: else each answer waits for the garbage collector."""
        self._writer.close()
        self._exchange = None

    async def fail(self, error: ApiError) -> web.StreamResponse:
        """An error status where nothing was sent, else the last words of a broken answer."""
        self._record.error = self._record.error or error.code or error.message
        if self._response is None:
            self._record.outcome, self._record.status = RequestOutcome.REFUSED, error.status
            response = error_response(error, weir_headers(self._record), self._request.path)
            if error.status == 408:
                await self._hang_up(response)
            return response
        self._record.outcome = RequestOutcome.ERROR
        await self._break(Failure(error.message, error.type, error.code))
        return self._response

    def _begun(self) -> web.StreamResponse:
        """The streamed answer, whose head goes out with its first byte."""
        if self._response is None:
            exchange = self._exchange
            assert exchange is not None  # set by stream()
            headers = exchange.passed_headers | STREAM_HEADERS | weir_headers(self._record, exchange.scanned)
            self._response = self._writer.begin(headers, keeps_open=not self._admission.is_draining)
            self._record.status = 200
        return self._response

    async def _hang_up(self, response: web.Response) -> None:
        """Answer without waiting for the rest of a request that comes too slowly."""
        await response.prepare(self._request)
        await response.write_eof()
        if self._request.transport is not None:
            self._request.transport.close()

    async def _break(self, failure: Failure) -> None:
        """Say why, and close without the chunk that says "complete": no client may take what it got for all."""
        transport = self._request.transport
        if self._response is None or transport is None or transport.is_closing() or self._writer.chunks.has_ended:
            return
        if self._exchange is not None:
            self._writer.chunks.write(self._exchange.encode_failure(failure))
            if self._writer.chunks.is_full:
                await self._writer.drain()
        transport.close()


def check(stream: ModeratedStream) -> None:
    """Raises ApiError for a failed answer."""
    if stream.failure is None or stream.outcome is not Outcome.FAILED:
        return
    raise refusal(stream.failure)


def refusal(failure: Failure) -> ApiError:
    """What a client gets whose answer failed before its first byte."""
    error = Fault(failure, status_of(failure)).api_error()
    if failure.code == GUARD_FAILED.code:
        # The upstream has answered. SDKs that ask again unseen would have it answer, and bill, up to three times.
        error.headers = {**error.headers, "x-should-retry": "false"}
    return error


def error_response(error: ApiError, headers: dict[str, str], path: str = "") -> web.Response:
    """In the shape that clients of that path read."""
    return web.json_response(error_body(path, error), status=error.status, headers=headers | dict(error.headers))


def weir_headers(record: Record, scanned: Scanned | None = None) -> dict[str, str]:
    return {
        "x-weir-request-id": record.request_id,
        "x-weir-guard": record.guard,
        "x-weir-policy": record.policy,
        "x-weir-scanned": scanned or record.scanned,
    }
