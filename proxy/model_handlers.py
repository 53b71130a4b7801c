"""The list of models: the upstream's own, or that of several in one."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from proxy.errors import ApiError, Fault
from proxy.handlers import CALLER, SERVICE
from proxy.model_list import QUERIES, read_models
from proxy.replies import error_response
from proxy.upstream import Upstream, UpstreamResponse

MODELS = "/v1/models"

LOGGER = logging.getLogger("weir.models")
# What a list waits for the slowest of several upstreams: clients ask for it when they start.
SLOWEST_SECONDS = 10.0

Listed = tuple[dict[str, Any], dict[str, str]]  # the list, and the upstream's headers that may pass


async def models(request: web.Request) -> web.StreamResponse:
    with request[CALLER].limits.enter():
        return await _models(request)


async def _models(request: web.Request) -> web.StreamResponse:
    service = request[SERVICE]
    upstreams = list(service.upstreams)
    headers = request[CALLER].forwarded(request.headers)
    if service.telemetry is not None:
        headers = service.telemetry.untraced(headers)
    if len(upstreams) > 1:
        return await _merged(request, upstreams, headers)
    try:
        listed, passed = await _list(upstreams[0], headers, request.rel_url.raw_query_string)
    except ApiError as exc:
        return error_response(exc, {})
    return web.json_response(listed, headers=passed)


async def _merged(request: web.Request, upstreams: list[Upstream], headers: Mapping[str, str]) -> web.StreamResponse:
    """Of each upstream the models that would go to it. One that fails is left out, and the log says so."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_list_in_time(one, headers)) for one in upstreams]
    lists = [one.result() for one in asked]
    if all(listed is None for listed in lists):
        return error_response(ApiError(502, "No upstream lists its models.", "api_error", code="upstream_error"), {})
    route = request[SERVICE].upstreams.find
    data = {
        entry["id"]: entry
        for upstream, listed in zip(upstreams, lists, strict=True)
        for entry in listed or ()
        if route(entry["id"]) is upstream
    }
    return web.json_response({"object": "list", "data": list(data.values())})


async def _list_in_time(upstream: Upstream, headers: Mapping[str, str]) -> list[dict[str, Any]] | None:
    try:
        async with asyncio.timeout(SLOWEST_SECONDS):
            listed, _ = await _list(upstream, headers)
    except (ApiError, TimeoutError) as exc:
        reason = f"{exc.status} {exc.code}" if isinstance(exc, ApiError) else "too slow"
        LOGGER.warning("models of the upstream %s are not listed: %s", upstream.name, reason)
        return None
    data: list[dict[str, Any]] = listed["data"]
    return data


async def ask_for_models(upstream: Upstream, headers: Mapping[str, str], query: str = "") -> UpstreamResponse:
    """`query`: the client's, which an upstream of another dialect would not understand. Raises Fault."""
    dialect = upstream.settings.dialect
    query, is_other = QUERIES.get(dialect, query), dialect != "openai"
    return await upstream.open("GET", "/models", headers, query=query, moves_key=is_other)


async def _list(upstream: Upstream, headers: Mapping[str, str], query: str = "") -> Listed:
    """Raises ApiError."""
    try:
        response = await ask_for_models(upstream, headers, query)
        try:
            body = await response.read_all(upstream.settings.max_body_bytes, upstream.settings.idle_seconds)
        finally:
            response.close()
    except Fault as fault:
        raise fault.api_error() from fault
    passed = dict(response.headers)
    if response.status >= 400:
        message = f"The upstream answered with status {response.status}."
        raise ApiError(response.status, message, "upstream_error", headers=passed)
    try:
        return read_models(body, upstream.settings.dialect), passed
    except ValueError as exc:
        raise ApiError(502, "The upstream's list of models cannot be read.", "api_error") from exc
