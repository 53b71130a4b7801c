"""One coroutine an endpoint: request in, response out."""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from adapters.base import Failure
from proxy.admission import Admission
from proxy.errors import INTERNAL, SHUTTING_DOWN, ApiError, Fault, place_of, status_of
from proxy.exchange import Ask, Exchange, Service
from proxy.model_list import read_models
from proxy.prompts import PromptBlocked
from proxy.records import Record, RequestOutcome, Scanned
from proxy.request_body import BadRequest, ChatRequest, check_headers, read_chat_request, read_object
from proxy.sse import HEARTBEAT
from proxy.stream import ModeratedStream, Outcome
from proxy.upstream import CREDENTIALS

HTTP_LOGGER = logging.getLogger("weir.http")

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"

# A larger body is parsed in a thread: about 1 ms on the event loop.
OFF_LOOP_BYTES = 64 << 10

STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


SERVICE = web.AppKey("service", Service)
ADMISSION = web.AppKey("admission", Admission)


async def chat_completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    record = Record(f"weir-{uuid.uuid4().hex}", CHAT, service.policy.name, _guard_name(service))
    reply = _Reply(request, record, service.settings.server.send_seconds)
    try:
        async with request.app[ADMISSION].enter():
            return await _chat(request, service, record, reply)
    except ApiError as exc:
        return await reply.fail(exc)
    except (asyncio.CancelledError, ConnectionError):
        if not reply.is_told:
            record.outcome = RequestOutcome.CLIENT_GONE
        raise
    except Exception as exc:  # a mistake of ours is no reason to leave the client without an end
        record.error = f"internal: {place_of(exc)}"
        return await reply.fail(Fault(INTERNAL, 500).api_error())
    finally:
        record.write()


async def _chat(request: web.Request, service: Service, record: Record, reply: "_Reply") -> web.StreamResponse:
    chat = await _read_chat(request, service)
    record.model, record.stream = chat.model, chat.stream
    ask = Ask(CHAT, chat, request.headers, request.rel_url.raw_query_string, owner_of(request.headers))
    async with Exchange(service, record, ask) as exchange:
        try:
            await exchange.begin()
        except PromptBlocked as blocked:
            return _blocked_prompt(service, record, exchange, blocked)
        return await (reply.stream(exchange) if chat.stream else reply.body(exchange))


async def _read_chat(request: web.Request, service: Service) -> ChatRequest:
    limits = service.settings.server
    try:
        check_headers(request.headers.get("content-type"), request.headers.get("content-encoding"))
        raw = await _read_body(request, service)
        read = partial(read_object, raw, max_depth=limits.max_json_depth)
        body = await asyncio.to_thread(read) if len(raw) > OFF_LOOP_BYTES else read()
        return read_chat_request(body, limits)
    except BadRequest as exc:
        raise ApiError(exc.status, exc.message, param=exc.param, code=exc.code) from exc


async def _read_body(request: web.Request, service: Service) -> bytes:
    limits = service.settings.server
    too_large = ApiError(413, f"The body exceeds {limits.max_body_bytes} bytes.", code="request_too_large")
    if (request.content_length or 0) > limits.max_body_bytes:
        raise too_large
    try:
        async with asyncio.timeout(limits.request_seconds):
            return await request.read()  # the application's client_max_size bounds it
    except web.HTTPRequestEntityTooLarge as exc:
        raise too_large from exc
    except web.RequestPayloadError as exc:
        raise ApiError(400, "The body cannot be read.", code="invalid_body") from exc
    except TimeoutError as exc:
        raise ApiError(408, "The body did not arrive in time.", code="request_timeout") from exc


class _Reply:
    """What the client of one request gets. Headers go out with the first byte, so an early failure has a status."""

    def __init__(self, request: web.Request, record: Record, send_seconds: float) -> None:
        self._request = request
        self._record = record
        self._send_seconds = send_seconds
        self._exchange: Exchange | None = None
        self._response: web.StreamResponse | None = None  # once its headers are out
        self.is_told = False  # the whole answer has been written

    async def body(self, exchange: Exchange) -> web.StreamResponse:
        """An answer in one piece: nothing is sent before all of it is judged."""
        chunks: list[bytes] = []

        async def collect(data: bytes) -> None:
            chunks.append(data)

        _check(await exchange.run(collect))
        self._record.status = 200
        headers = exchange.passed_headers | _weir_headers(self._record, exchange.scanned)
        return web.Response(body=b"".join(chunks), content_type="application/json", headers=headers)

    async def stream(self, exchange: Exchange) -> web.StreamResponse:
        """An answer as server-sent events."""
        self._exchange = exchange
        try:
            _check(await exchange.run(self._write, heartbeat=lambda: self._write(HEARTBEAT)))
            self.is_told = True
            await exchange.finish()
        except asyncio.CancelledError:
            # The server stops. If it is the client that left, this reaches nobody.
            await self._break(SHUTTING_DOWN)
            raise
        return await self._prepared(exchange)

    async def fail(self, error: ApiError) -> web.StreamResponse:
        """An error status where nothing was sent, else the last words of a broken answer."""
        self._record.error = self._record.error or error.code or error.message
        if self._response is None:
            self._record.outcome, self._record.status = RequestOutcome.REFUSED, error.status
            response = error_response(error, _weir_headers(self._record))
            if error.status == 408:
                await self._hang_up(response)
            return response
        self._record.outcome = RequestOutcome.ERROR
        await self._break(Failure(error.message, error.type, error.code))
        return self._response

    async def _write(self, data: bytes) -> None:
        assert self._exchange is not None  # set by stream()
        response = await self._prepared(self._exchange)
        try:
            async with asyncio.timeout(self._send_seconds):
                await response.write(data)
        except TimeoutError as exc:
            # A client that does not read would hold the upstream and the guard for ever.
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionAbortedError("the client does not read") from exc

    async def _prepared(self, exchange: Exchange) -> web.StreamResponse:
        if self._response is None:
            headers = exchange.passed_headers | STREAM_HEADERS | _weir_headers(self._record, exchange.scanned)
            response = web.StreamResponse(headers=headers)
            await response.prepare(self._request)
            self._response, self._record.status = response, 200
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
        if self._response is None or self._exchange is None or transport is None or transport.is_closing():
            return
        await self._write(self._exchange.encode_failure(failure))
        transport.close()


def _check(stream: ModeratedStream) -> None:
    """Raises ApiError for a failed answer."""
    if stream.failure is not None and stream.outcome is Outcome.FAILED:
        raise Fault(stream.failure, status_of(stream.failure)).api_error()


async def models(request: web.Request) -> web.StreamResponse:
    """The upstream's list of models."""
    service = request.app[SERVICE]
    try:
        response = await service.upstream.open(
            "GET", "/models", request.headers, query=request.rel_url.raw_query_string
        )
        try:
            limits = service.settings.upstream
            body = await response.read_all(limits.max_body_bytes, limits.idle_seconds)
        finally:
            response.close()
    except Fault as fault:
        return error_response(fault.api_error(), {})
    if response.status >= 400:
        message = f"The upstream answered with status {response.status}."
        return error_response(ApiError(response.status, message, "upstream_error"), dict(response.headers))
    try:
        listed = read_models(body)
    except ValueError:
        return error_response(ApiError(502, "The upstream's list of models cannot be read.", "api_error"), {})
    return web.json_response(listed, headers=response.headers)


async def alive(_: web.Request) -> web.StreamResponse:
    return web.json_response({"status": "ok"})


async def ready(request: web.Request) -> web.StreamResponse:
    """A real verdict on a canary text: red while the guard hangs, whatever its process says."""
    health = await request.app[SERVICE].guard.health()
    is_ready = health.is_ready and not request.app[ADMISSION].is_draining
    return web.json_response({"ready": is_ready}, status=200 if is_ready else 503)


def error_response(error: ApiError, headers: dict[str, str]) -> web.Response:
    return web.json_response(error.body(), status=error.status, headers=headers | dict(error.headers))


@web.middleware
async def errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    """Whatever goes wrong outside an endpoint is told in the shape that clients of the API read."""
    try:
        _check_head(request)
        response: web.StreamResponse = await handler(request)
    except ApiError as exc:
        return error_response(exc, {})
    except (ConnectionError, TimeoutError):
        raise
    except web.HTTPException as exc:
        allowed = {"allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}
        message = {404: "There is no such endpoint here.", 405: "The endpoint does not take this method."}
        text = message.get(exc.status, "The request cannot be served.")
        return error_response(ApiError(exc.status, text, code="not_found" if exc.status == 404 else None), allowed)
    except Exception as exc:
        HTTP_LOGGER.error("internal error: %s", place_of(exc))
        return error_response(Fault(INTERNAL, 500).api_error(), {})
    return response


def _check_head(request: web.Request) -> None:
    """What routes and parsers may disagree about is refused. Raises ApiError."""
    resource = request.match_info.route.resource
    if resource is not None and request.raw_path.partition("?")[0] != resource.canonical:
        raise ApiError(404, "There is no such endpoint here.", code="not_found")
    is_chunked = hdrs.TRANSFER_ENCODING in request.headers
    if request.version not in (HttpVersion10, HttpVersion11) or (is_chunked and request.version == HttpVersion10):
        raise ApiError(400, "Send the request as HTTP/1.1.", code="unsupported_http_version")


def _blocked_prompt(service: Service, record: Record, exchange: Exchange, blocked: PromptBlocked) -> web.StreamResponse:
    policy, note = service.settings.policy, blocked.note
    headers = _weir_headers(record, exchange.scanned)
    if policy.prompt_block == "answer":
        record.outcome, record.status = RequestOutcome.CUT, 200
        kind = STREAM_HEADERS if record.stream else {"content-type": "application/json"}
        return web.Response(body=b"".join(exchange.blocked_answer(blocked)), headers=kind | headers)
    verdict = {"risk_level": note.risk_level, "category": note.category, "risk_prob": round(note.probability, 4)}
    raise ApiError(
        400,
        policy.prompt_notice or "The request was stopped by a safety policy.",
        param="messages",
        code="content_filter",
        headers={"x-should-retry": "false"},
        extra={"innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"weir": verdict}}},
    )


def _weir_headers(record: Record, scanned: Scanned | None = None) -> dict[str, str]:
    return {
        "x-weir-request-id": record.request_id,
        "x-weir-guard": record.guard,
        "x-weir-policy": record.policy,
        "x-weir-scanned": scanned or record.scanned,
    }


def owner_of(headers: Mapping[str, str]) -> str:
    """Who pays, as the guard may know it: a hash of the credential, or nobody in particular."""
    credential = next((headers[name] for name in CREDENTIALS if name in headers), "")
    return hashlib.sha256(credential.encode("utf-8", "replace")).hexdigest() if credential else ""


def _guard_name(service: Service) -> str:
    return f"{service.guard.info.model}@{service.guard.info.revision}"
