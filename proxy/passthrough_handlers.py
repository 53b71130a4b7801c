"""What nobody can judge, and the operator allows: it passes as it is in both directions, labelled and recorded."""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from proxy.deadline import Deadline
from proxy.errors import UPSTREAM_ODD, ApiError, Fault
from proxy.exchange import Service
from proxy.handlers import CALLER, served
from proxy.limits import Limit
from proxy.passthrough import Route
from proxy.records import Record
from proxy.replies import Reply
from proxy.upload import Upload
from proxy.upstream import MAX_ERROR_BYTES, Upstream, UpstreamResponse, reader

TOO_LARGE = replace(UPSTREAM_ODD, limit=Limit.PASSED_ANSWER)

Handler = Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]


def passing(route: Route) -> Handler:
    """The handler of one route."""

    async def passed(request: web.Request) -> web.StreamResponse:
        return await served(request, partial(_pass, route), endpoint=route.path)

    return passed


async def _pass(
    route: Route, request: web.Request, service: Service, record: Record, reply: Reply
) -> web.StreamResponse:
    limits = service.settings.passthrough
    upstream = service.upstreams.named(limits.upstream)
    record.passthrough, record.upstream = route.family, upstream.name
    has_body = route.method == "POST" and request.can_read_body
    upload = Upload(request, limits, upstream.settings.total_seconds) if has_body else None
    try:
        record.note_upstream(upstream.settings)
        response = await _open(route, request, upstream, upload, record)
        record.note_head(response.status)
        try:
            with closing(Deadline()) as deadline:
                return await _relay(response, upstream, limits.max_answer_bytes, record, reply, deadline)
        finally:
            response.close()
    except Fault as fault:
        record.error = str(fault)
        raise fault.api_error() from fault
    finally:
        record.note_upstream_end()
        record.uploaded_bytes = upload.size if upload is not None else 0


async def _open(
    route: Route, request: web.Request, upstream: Upstream, upload: Upload | None, record: Record
) -> UpstreamResponse:
    """Raises Fault, ApiError."""
    path = route.path.format(*(request.match_info[f"id{number}"] for number in range(len(request.match_info))))
    try:
        return await upstream.open(
            route.method,
            path.removeprefix("/v1"),
            record.sent_headers(request[CALLER].forwarded(request.headers)),
            body=upload,
            query=request.rel_url.raw_query_string,
            key_header=route.key_header,
        )
    except Fault as fault:
        if upload is not None and upload.error is not None:
            raise upload.error from fault
        raise


async def _relay(
    response: UpstreamResponse, upstream: Upstream, limit: int, record: Record, reply: Reply, deadline: Deadline
) -> web.StreamResponse:
    """Raises Fault, ApiError."""
    headers = dict(response.headers) | {"content-type": response.media_type}
    if response.status >= 400 and upstream.own_key is not None:
        body = await _error_without(upstream.own_key, response)
        source = _once(body)
        headers["content-length"] = str(len(body))
    else:
        source = reader(response, upstream.settings, deadline)
        if response.length is not None:
            headers["content-length"] = str(response.length)

    async def read() -> bytes:
        chunk = await source()
        record.downloaded_bytes += len(chunk)
        if record.downloaded_bytes > limit:
            raise Fault(TOO_LARGE, 502, f"an answer of more than {limit} bytes")
        return chunk

    return await reply.relay(response.status, headers, read)


async def _error_without(key: str, response: UpstreamResponse) -> bytes:
    """An error's body, where it is surely not about our key. Raises ApiError where it may be."""
    body = await response.read_error()
    if response.status in (401, 403) or key.encode() in body or len(body) == MAX_ERROR_BYTES:
        message = f"The upstream answered with status {response.status}."
        raise ApiError(response.status, message, "upstream_error", headers=response.headers)
    return body


def _once(body: bytes) -> Callable[[], Awaitable[bytes]]:
    chunks = [b"", body]

    async def read() -> bytes:
        return chunks.pop() if chunks else b""

    return read
