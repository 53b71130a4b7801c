"""A request's body off the wire: within its limits and its deadline, as JSON, as the reader understands it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from proxy.aside import Run, at_once
from proxy.errors import ApiError, Fault
from proxy.limits import Limit
from proxy.request_body import BadRequest, check_headers, read_object
from proxy.server_settings import ServerSettings

# A larger body is parsed in a thread: about 1 ms on the event loop.
OFF_LOOP_BYTES = 64 << 10

T = TypeVar("T")


async def read_request(
    request: web.Request, limits: ServerSettings, understand: Callable[[Mapping[str, Any]], T], aside: Run = at_once
) -> T:
    """`understand` reads the body's object, or raises BadRequest; with a large one, it is called by `aside`.

    Raises ApiError.
    """
    try:
        check_headers(request.headers.get("content-type"), request.headers.get("content-encoding"))
        raw = await _read_body(request, limits)
        run = aside if len(raw) > OFF_LOOP_BYTES else at_once
        return await run(lambda: understand(read_object(raw, max_depth=limits.max_json_depth)))
    except Fault as fault:
        raise fault.api_error() from fault
    except BadRequest as exc:
        raise ApiError(exc.status, exc.message, param=exc.param, code=exc.code, limit=exc.limit) from exc


async def _read_body(request: web.Request, limits: ServerSettings) -> bytearray:
    if (request.content_length or 0) > limits.max_body_bytes:
        raise _too_large(limits)
    try:
        if request.content.is_eof():  # all of it has come with the head, so there is nothing to wait for
            return await _all_of(request, limits)
        async with asyncio.timeout(limits.request_seconds):
            return await _all_of(request, limits)
    except web.RequestPayloadError as exc:
        raise ApiError(400, "The body cannot be read.", code="invalid_body") from exc
    except TimeoutError as exc:
        raise ApiError(
            408, "The body did not arrive in time.", code="request_timeout", limit=Limit.BODY_SECONDS
        ) from exc


async def _all_of(request: web.Request, limits: ServerSettings) -> bytearray:
    body = bytearray()  # aiohttp's own `read` would copy it once more, which takes milliseconds
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > limits.max_body_bytes:
            raise _too_large(limits)
    return body


def _too_large(limits: ServerSettings) -> ApiError:
    message = f"The body exceeds {limits.max_body_bytes} bytes."
    return ApiError(413, message, code="request_too_large", limit=Limit.BODY)
