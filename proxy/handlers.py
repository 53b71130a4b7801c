"""One coroutine an endpoint: request in, response out."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from proxy.errors import RETRY_AFTER_SECONDS, ApiError, Fault, status_of
from proxy.exchange import Ask, Exchange, PromptBlocked, Service
from proxy.records import Record, RequestOutcome, Scanned
from proxy.request_body import BadRequest, ChatRequest, check_headers, read_chat_request, read_object
from proxy.sse import HEARTBEAT
from proxy.stream import Outcome

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"

STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


class Admission:
    """Counts the moderated requests under way. What is too many is refused at once, not queued."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.running = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Raises ApiError."""
        if self.running >= self._limit:
            retry = {"retry-after": str(RETRY_AFTER_SECONDS)}
            raise ApiError(503, "Too many requests are running.", "api_error", code="overloaded", headers=retry)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1


SERVICE = web.AppKey("service", Service)
ADMISSION = web.AppKey("admission", Admission)


async def chat_completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    record = Record(f"weir-{uuid.uuid4().hex}", CHAT, service.policy.name, _guard_name(service))
    try:
        with request.app[ADMISSION].enter():
            return await _chat(request, service, record)
    except ApiError as exc:
        record.outcome, record.status = RequestOutcome.REFUSED, exc.status
        record.error = record.error or exc.code or exc.message
        return error_response(exc, _weir_headers(record))
    except (asyncio.CancelledError, ConnectionError, TimeoutError):
        record.outcome = RequestOutcome.CLIENT_GONE
        raise
    finally:
        record.write()


async def _chat(request: web.Request, service: Service, record: Record) -> web.StreamResponse:
    chat = await _read_chat(request, service)
    record.model, record.stream = chat.model, chat.stream
    ask = Ask(CHAT, chat, request.headers, query=request.rel_url.raw_query_string)
    async with Exchange(service, record, ask) as exchange:
        try:
            await exchange.begin()
        except PromptBlocked as blocked:
            record.scanned = Scanned.FULL
            return _blocked_prompt(service, record, exchange, blocked)
        reply = _StreamReply(request, service, record) if chat.stream else _BodyReply(record)
        return await reply.run(exchange)


async def _read_chat(request: web.Request, service: Service) -> ChatRequest:
    limits = service.settings.server
    try:
        check_headers(request.headers.get("content-type"), request.headers.get("content-encoding"))
        body = read_object(await _read_body(request, service), max_depth=limits.max_json_depth)
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
    except TimeoutError as exc:
        # Reading on would only wait for the rest of it.
        raise ApiError(408, "The body did not arrive in time.", headers={"connection": "close"}) from exc


class _BodyReply:
    """An answer in one piece: nothing is sent before all of it is judged."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._chunks: list[bytes] = []

    async def run(self, exchange: Exchange) -> web.StreamResponse:
        stream = await exchange.run(self._write)
        if stream.failure is not None and stream.outcome is Outcome.FAILED:
            self._record.error = stream.error
            raise Fault(stream.failure, status_of(stream.failure)).api_error()
        self._record.status = 200
        body = b"".join(self._chunks)
        headers = exchange.passed_headers | _weir_headers(self._record, exchange.scanned)
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _write(self, data: bytes) -> None:
        self._chunks.append(data)


class _StreamReply:
    """An answer as server-sent events. Headers go out with its first byte, so an early failure has a status."""

    def __init__(self, request: web.Request, service: Service, record: Record) -> None:
        self._request = request
        self._send_seconds = service.settings.server.send_seconds
        self._record = record
        self._response: web.StreamResponse | None = None
        self._headers: dict[str, str] = {}

    async def run(self, exchange: Exchange) -> web.StreamResponse:
        self._headers = exchange.passed_headers | STREAM_HEADERS | _weir_headers(self._record, exchange.scanned)
        stream = await exchange.run(self._write, heartbeat=self._heartbeat)
        if stream.outcome is Outcome.FAILED:
            self._abort()
        response = await self._prepared()
        self._record.status = 200
        return response

    async def _write(self, data: bytes) -> None:
        response = await self._prepared()
        try:
            async with asyncio.timeout(self._send_seconds):
                await response.write(data)
        except TimeoutError:
            self._abort()  # a client that does not read would hold the upstream and the guard for ever
            raise

    async def _heartbeat(self) -> None:
        await self._write(HEARTBEAT)

    async def _prepared(self) -> web.StreamResponse:
        if self._response is None:
            self._response = web.StreamResponse(headers=self._headers)
            await self._response.prepare(self._request)
        return self._response

    def _abort(self) -> None:
        """Close without the chunk that says "complete": no client may take what it got for a whole answer."""
        if self._request.transport is not None:
            self._request.transport.close()


async def models(request: web.Request) -> web.StreamResponse:
    """The upstream's list of models, rebuilt from the fields that name them."""
    service = request.app[SERVICE]
    try:
        response = await service.upstream.open(
            "GET", "/models", request.headers, query=request.rel_url.raw_query_string
        )
        try:
            body = await response.read_all(service.settings.upstream.max_body_bytes)
        finally:
            response.close()
    except Fault as fault:
        return error_response(fault.api_error(), {})
    if response.status >= 400:
        message = f"The upstream answered with status {response.status}."
        return error_response(ApiError(response.status, message, "upstream_error"), dict(response.headers))
    try:
        listed = _models_of(body)
    except ValueError:
        return error_response(ApiError(502, "The upstream's list of models cannot be read.", "api_error"), {})
    return web.json_response(listed, headers=response.headers)


def _models_of(body: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    parsed = json.loads(body)
    data = parsed.get("data") if isinstance(parsed, dict) else None
    if not isinstance(data, list):
        raise ValueError("no list of models")
    keys = {"id": str, "object": str, "created": int, "owned_by": str}
    entries = [
        {key: entry[key] for key, kind in keys.items() if isinstance(entry.get(key), kind)}
        for entry in data
        if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    ]
    return {"object": "list", "data": entries}


async def alive(_: web.Request) -> web.StreamResponse:
    return web.json_response({"status": "ok"})


async def ready(request: web.Request) -> web.StreamResponse:
    """A real verdict on a canary text: red while the guard hangs, whatever its process says."""
    health = await request.app[SERVICE].guard.health()
    return web.json_response({"ready": health.is_ready}, status=200 if health.is_ready else 503)


def error_response(error: ApiError, headers: dict[str, str]) -> web.Response:
    return web.json_response(error.body(), status=error.status, headers=headers | dict(error.headers))


@web.middleware
async def errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    """Whatever goes wrong outside an endpoint is told in the shape that clients of the API read."""
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPException as exc:
        allowed = {"allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}
        message = {404: "There is no such endpoint here.", 405: "The endpoint does not take this method."}
        text = message.get(exc.status, "The request cannot be served.")
        return error_response(ApiError(exc.status, text, code="not_found" if exc.status == 404 else None), allowed)
    return response


def _blocked_prompt(service: Service, record: Record, exchange: Exchange, blocked: PromptBlocked) -> web.StreamResponse:
    policy, note = service.settings.policy, blocked.note
    headers = _weir_headers(record)
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


def _guard_name(service: Service) -> str:
    return f"{service.guard.info.model}@{service.guard.info.revision}"
