"""Anthropic's count of a request's tokens: only its number comes back, so there is nothing to judge."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from proxy.errors import ApiError, Fault
from proxy.exchange import Service
from proxy.handlers import CALLER, served
from proxy.incoming import read_request
from proxy.message_request import read_message_request
from proxy.passthrough import refusal
from proxy.records import Record, RequestOutcome
from proxy.replies import Reply, weir_headers
from proxy.request_body import dump
from proxy.request_fields import Terms, model_of
from proxy.upstream import Upstream

COUNT_TOKENS = "/v1/messages/count_tokens"
# Far above any answer of one number.
MAX_COUNT_BYTES = 64 << 10
MAX_TOKENS = 1 << 53


async def count_tokens(request: web.Request) -> web.StreamResponse:
    return await served(request, _count)


async def _count(request: web.Request, service: Service, record: Record, _: Reply) -> web.StreamResponse:
    def read(body: Mapping[str, Any]) -> tuple[str, bytes, Upstream]:
        upstream = service.upstreams.of_model(model_of(body))
        if upstream.settings.dialect != "anthropic":
            hint = refusal(request.method, request.path) or ""
            message = f"Tokens are counted by upstreams of the dialect anthropic, and the model's is none. {hint}"
            raise ApiError(404, message, code="unsupported_endpoint")
        # What cannot be judged may be counted.
        asked = read_message_request(body, Terms(service.settings.server, allow_unscanned=True))
        return asked.model, dump(asked.forward), upstream

    model, body, upstream = await read_request(request, service.settings.server, read, service.aside.run)
    record.model, record.upstream = model, upstream.name
    try:
        tokens = await _ask(request, upstream, body, record)
    except Fault as fault:
        record.error = str(fault)
        raise fault.api_error() from fault
    finally:
        record.note_upstream_end()
    record.outcome, record.status = RequestOutcome.COMPLETE, 200
    return web.json_response({"input_tokens": tokens}, headers=weir_headers(record))


async def _ask(request: web.Request, upstream: Upstream, body: bytes, record: Record) -> int:
    """Raises Fault, ApiError."""
    headers = record.sent_headers(request[CALLER].forwarded(request.headers))
    record.note_upstream(upstream.settings)
    query = request.rel_url.raw_query_string
    response = await upstream.open("POST", "/messages/count_tokens", headers, body=body, query=query)
    record.note_head(response.status)
    try:
        answer = await response.read_all(MAX_COUNT_BYTES, upstream.settings.idle_seconds)
    finally:
        response.close()
    if response.status >= 400:
        message = f"The upstream answered with status {response.status}."
        raise ApiError(response.status, message, "upstream_error", headers=response.headers)
    tokens = _number_in(answer)
    if tokens is None:
        raise ApiError(502, "The upstream's count cannot be read.", "api_error", code="upstream_unreadable")
    return tokens


def _number_in(answer: bytes) -> int | None:
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    tokens = said.get("input_tokens") if isinstance(said, dict) else None
    return tokens if type(tokens) is int and 0 <= tokens <= MAX_TOKENS else None
