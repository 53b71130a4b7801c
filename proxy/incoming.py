"""A request's body off the wire: within its limits and its deadline, as JSON, as the reader understands it."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from aiohttp import web

from proxy.errors import ApiError
from proxy.request_body import BadRequest, check_headers, read_object
from proxy.settings import ServerSettings

# A larger body is parsed in a thread: about 1 ms on the event loop.
OFF_LOOP_BYTES = 64 << 10

T = TypeVar("T")


async def read_request(request: web.Request, limits: ServerSettings, understand: Callable[[Mapping[str, Any]], T]) -> T:
    """`understand` reads the body's object, or raises BadRequest. Raises ApiError."""
    try:
        check_headers(request.headers.get("content-type"), request.headers.get("content-encoding"))
        raw = await _read_body(request, limits)
        read = partial(read_object, raw, max_depth=limits.max_json_depth)
        body = await asyncio.to_thread(read) if len(raw) > OFF_LOOP_BYTES else read()
        return understand(body)
    except BadRequest as exc:
        raise ApiError(exc.status, exc.message, param=exc.param, code=exc.code) from exc


async def _read_body(request: web.Request, limits: ServerSettings) -> bytes:
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
