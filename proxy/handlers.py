"""One coroutine an endpoint: request in, response out."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from proxy.admission import Admission
from proxy.annotations import ANNOTATIONS_HEADER, asked_notations
from proxy.current import Current
from proxy.dialects import call_of, stored_call
from proxy.dialects.call import UpstreamCall
from proxy.doors import DOORS, RESPONSES, terms_of
from proxy.errors import INTERNAL, ApiError, Fault, place_of
from proxy.exchange import Ask, Exchange, Service
from proxy.identity import Caller
from proxy.incoming import read_request
from proxy.limits import Limit
from proxy.metrics import Metrics, name_of
from proxy.policies import Chosen
from proxy.policy_settings import PolicySettings
from proxy.prompts import PromptBlocked
from proxy.records import Record, RequestOutcome
from proxy.replies import STREAM_HEADERS, Reply, weir_headers
from proxy.request_body import dump
from proxy.request_fields import ModeratedRequest, model_of
from proxy.stored_request import read_stored_request
from proxy.upstream import Upstream

HTTP_LOGGER = logging.getLogger("weir.http")

STORED_RESPONSE = RESPONSES + "/{response_id:resp_[A-Za-z0-9_-]{1,128}}"

# What a client asks for here holds beside the policy that the rules choose.
POLICY_HEADER = "x-weir-policy"
TRACEPARENT = "traceparent"

Answer = Callable[[web.Request, Service, Record, Reply], Awaitable[web.StreamResponse]]

CURRENT = web.AppKey("current", Current)
ADMISSION = web.AppKey("admission", Admission)
METRICS = web.AppKey("metrics", Metrics)
CALLER = web.RequestKey("caller", Caller)
SERVICE = web.RequestKey("service", Service)


async def moderated(request: web.Request) -> web.StreamResponse:
    """Any of the doors: the route is one of them, and says which."""
    return await served(request, _answer)


async def stored_response(request: web.Request) -> web.StreamResponse:
    """An answer that the upstream has kept: judged like a fresh one."""
    return await served(request, _read_back, endpoint=RESPONSES)


async def served(request: web.Request, answer: Answer, endpoint: str | None = None) -> web.StreamResponse:
    """Admit a request, have it answered, and write its record, whatever comes of it."""
    service = request[SERVICE]
    record = _open_record(request, service, endpoint or request.path)
    admission = request.app[ADMISSION]
    reply = Reply(request, record, service.settings.server.send_seconds, admission)
    caller = request[CALLER]
    record.key = caller.name
    try:
        with caller.limits.enter(), admission.enter():
            return await answer(request, service, record, reply)
    except ApiError as exc:
        request.app[METRICS].refused(exc)
        record.note_error(name_of(exc))
        return await reply.fail(exc)
    except (asyncio.CancelledError, ConnectionError):
        if reply.has_hung_up:  # which cancels us, as if the client had left
            request.app[METRICS].refused(ApiError(408, "", code="slow_client", limit=Limit.SEND))
        if not reply.is_told:
            record.outcome = RequestOutcome.CLIENT_GONE
        raise
    except Exception as exc:  # a mistake of ours is no reason to leave the client without an end
        record.error = f"internal: {place_of(exc)}"
        error = Fault(INTERNAL, 500).api_error()
        request.app[METRICS].refused(error)
        record.note_error(name_of(error))
        return await reply.fail(error)
    finally:
        reply.close()
        caller.limits.charge(record.tokens)
        _close_record(request, service, record)


def _open_record(request: web.Request, service: Service, endpoint: str) -> Record:
    policy, guard = service.policies.default.policy.name, service.guard.info
    record = Record(f"weir-{os.urandom(16).hex()}", endpoint, policy, f"{guard.model}@{guard.revision}")
    if service.telemetry is not None:
        service.telemetry.follow(record, request.method, request.headers.getall(TRACEPARENT, ()))
    return record


def _close_record(request: web.Request, service: Service, record: Record) -> None:
    """Tell it to all who keep or count."""
    record.write()
    request.app[METRICS].served(record)
    if service.records is not None:
        service.records.put(record)
    if service.telemetry is not None:
        service.telemetry.put(record)


async def _answer(request: web.Request, service: Service, record: Record, reply: Reply) -> web.StreamResponse:
    def read(body: Mapping[str, Any]) -> tuple[ModeratedRequest, Chosen, Upstream, UpstreamCall, bytes]:
        model = model_of(body)
        upstream = service.upstreams.of_model(model)
        chosen = choose(request, service, record, model, upstream.name)
        terms = terms_of(service.settings.server, chosen)
        asked = DOORS[record.endpoint].read(body, terms)
        call = call_of(asked, record.endpoint, query, upstream.settings)
        return asked, chosen, upstream, call, dump(call.body or {})

    query = request.rel_url.raw_query_string
    # No name for what is found: its body, which may be long, is not needed to the end of the answer.
    return await _exchange(
        request, service, record, reply, *await read_request(request, service.settings.server, read, service.aside.run)
    )


async def _read_back(request: web.Request, service: Service, record: Record, reply: Reply) -> web.StreamResponse:
    asked = read_stored_request(list(request.query.items()))
    upstream = service.upstreams.of_stored()
    chosen = choose(request, service, record, None, upstream.name)
    path = f"/responses/{request.match_info['response_id']}"
    call = stored_call(record.endpoint, path, request.rel_url.raw_query_string, upstream.settings)
    return await _exchange(request, service, record, reply, asked, chosen, upstream, call)


def choose(request: web.Request, service: Service, record: Record, model: str | None, upstream: str = "") -> Chosen:
    """The policy of a request for that model, None where nobody knows it; the record names it. Raises ApiError."""
    wishes = [name.strip() for name in request.headers.getall(POLICY_HEADER, [])]
    try:
        chosen = service.policies.choose(record.endpoint, model, upstream, record.key, wishes)
    except KeyError:
        message = f"'{POLICY_HEADER}' names no policy of this server."
        raise ApiError(400, message, param=POLICY_HEADER, code="unknown_policy") from None
    record.policy = chosen.policy.name
    return chosen


async def _exchange(
    request: web.Request,
    service: Service,
    record: Record,
    reply: Reply,
    asked: ModeratedRequest,
    chosen: Chosen,
    upstream: Upstream,
    call: UpstreamCall,
    body: bytes | None = None,
) -> web.StreamResponse:
    record.model, record.stream = asked.model, asked.stream
    record.upstream, record.dropped_parameters = upstream.name, call.dropped
    caller = request[CALLER]
    headers = record.sent_headers(caller.forwarded(request.headers))
    wishes = request.headers.getall(ANNOTATIONS_HEADER, [])
    notations = asked_notations(wishes, wants_moderation=asked.moderation is not None)
    ask = Ask(record.endpoint, asked, chosen, upstream, headers, call, caller.owner, notations)
    exchange = Exchange(service, record, ask, body)
    del ask, body
    async with exchange:
        try:
            await exchange.begin()
        except PromptBlocked as blocked:
            return _blocked_prompt(chosen.settings, record, exchange, blocked)
        return await (reply.stream(exchange) if asked.stream else reply.body(exchange))


async def alive(_: web.Request) -> web.StreamResponse:
    return web.json_response({"status": "ok"})


async def ready(request: web.Request) -> web.StreamResponse:
    return told_ready(await is_ready(request.app))


async def is_ready(app: web.Application) -> bool:
    """A real verdict on a canary text: red while the guard hangs, whatever its process says."""
    health, admission = await app[CURRENT].now.guard.health(), app[ADMISSION]
    return health.is_ready and not (admission.is_draining or admission.is_one_of_some)


def told_ready(found: bool) -> web.StreamResponse:
    return web.json_response({"ready": found}, status=200 if found else 503)


def metrics_of(app: web.Application) -> Metrics:
    """As they are now."""
    found = app[METRICS]
    found.streams.set(app[ADMISSION].running)
    return found


def _blocked_prompt(
    policy: PolicySettings, record: Record, exchange: Exchange, blocked: PromptBlocked
) -> web.StreamResponse:
    note = blocked.note
    headers = weir_headers(record, exchange.scanned)
    if policy.prompt_block == "answer":
        record.outcome, record.status = RequestOutcome.CUT, 200
        kind = STREAM_HEADERS if record.stream else {"content-type": "application/json"}
        return web.Response(body=b"".join(exchange.blocked_answer(blocked)), headers=kind | headers)
    verdict = {"risk_level": note.risk_level, "category": note.category, "risk_prob": round(note.probability, 4)}
    raise ApiError(
        400,
        policy.prompt_notice or "The request was stopped by a safety policy.",
        param=DOORS[record.endpoint].prompt_param,
        code="content_filter",
        headers={"x-should-retry": "false"},
        extra={"innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"weir": verdict}}},
    )
