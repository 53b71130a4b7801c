"""The guard's own verdict for other programs: OpenAI's moderations, and LiteLLM's generic guardrail."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from aiohttp import web

from adapters.notations import moderation_entry
from proxy.aside import at_once
from proxy.doors import terms_of
from proxy.exchange import Service
from proxy.guard.protocol import GuardError
from proxy.handlers import CALLER, choose, served
from proxy.incoming import read_request
from proxy.moderation_request import Messages, read_guardrail_request, read_moderation_request
from proxy.policies import Chosen
from proxy.prompts import refusal_without_verdict
from proxy.records import Record, RequestOutcome, Scanned
from proxy.replies import Reply, weir_headers
from proxy.request_fields import Terms
from proxy.verdicts import Judged, judge_all

MODERATIONS = "/v1/moderations"
GUARDRAIL = "/beta/litellm_basic_guardrail_api"

# More are written in a thread: a result takes 20 us.
OFF_LOOP_RESULTS = 64

Asked = TypeVar("Asked")

IMAGES = "Images cannot be read by the guard."


async def moderations(request: web.Request) -> web.StreamResponse:
    return await served(request, _moderations)


async def guardrail(request: web.Request) -> web.StreamResponse:
    return await served(request, _guardrail)


async def _moderations(request: web.Request, service: Service, record: Record, _: Reply) -> web.StreamResponse:
    asked, chosen = await _read(request, service, record, read_moderation_request)
    record.model = asked.model
    judged = await _judged(request, service, record, chosen, asked.conversations, asked.unscanned)
    model = service.guard.info.model

    def write() -> str:
        head = json.dumps({"id": f"modr-{secrets.token_hex(12)}", "model": model})
        # One by one: as objects, the results of 1,000 short texts take 12 MB.
        results = (json.dumps(moderation_entry(model, one.assessment)) + ", " for one in judged)
        return "".join([head[:-1], ', "results": [', *results]).removesuffix(", ") + "]}"

    return _answer(record, await (service.aside.run if len(judged) > OFF_LOOP_RESULTS else at_once)(write))


async def _guardrail(request: web.Request, service: Service, record: Record, _: Reply) -> web.StreamResponse:
    asked, chosen = await _read(request, service, record, read_guardrail_request)
    if asked.has_images and not terms_of(service.settings.server, chosen).allow_unscanned:
        return _answer(record, {"action": "BLOCKED", "blocked_reason": IMAGES}, is_blocked=True)
    unscanned = ("images",) if asked.has_images else ()
    judged = await _judged(request, service, record, chosen, asked.conversations, unscanned)
    blocked = next((one for one in judged if one.is_blocked), None)
    if blocked is None:
        return _answer(record, {"action": "NONE"})
    category = blocked.assessment.worst.category if blocked.assessment.worst else None
    notice = chosen.settings.prompt_notice or "Stopped by a safety policy."
    return _answer(record, {"action": "BLOCKED", "blocked_reason": f"{notice} ({category})"}, is_blocked=True)


async def _read(
    request: web.Request, service: Service, record: Record, understand: Callable[[Mapping[str, Any], Terms], Asked]
) -> tuple[Asked, Chosen]:
    """What is asked, and the policy that answers it. Raises ApiError."""

    def read(body: Mapping[str, Any]) -> tuple[Asked, Chosen]:
        model = body.get("model")
        chosen = choose(request, service, record, model if isinstance(model, str) else "")
        return understand(body, terms_of(service.settings.server, chosen)), chosen

    return await read_request(request, service.settings.server, read, service.aside.run)


async def _judged(
    request: web.Request,
    service: Service,
    record: Record,
    chosen: Chosen,
    conversations: Sequence[Messages],
    unscanned: tuple[str, ...],
) -> list[Judged]:
    """Raises ApiError."""
    begin = record.elapsed()
    try:
        owner, aside = request[CALLER].owner, service.aside.run
        judged = await judge_all(conversations, service.guard, service.settings.guard, chosen, owner, aside)
    except GuardError as exc:
        record.error = f"{type(exc).__name__}: {exc}"
        raise refusal_without_verdict(exc) from exc
    finally:
        record.note_prompt(begin)
    record.unscanned_parts = (*unscanned, *(part for one in judged for part in one.unscanned))
    record.prompt_tokens = sum(one.tokens for one in judged)
    record.scanned = Scanned.PARTIAL if record.unscanned_parts else Scanned.FULL
    flagged = [one.assessment.worst for one in judged if one.assessment.is_flagged]
    record.prompt_flagged = bool(flagged)
    record.prompt = flagged[0] if flagged else None
    return judged


def _answer(record: Record, body: Mapping[str, Any] | str, *, is_blocked: bool = False) -> web.Response:
    record.outcome, record.status = (RequestOutcome.CUT if is_blocked else RequestOutcome.COMPLETE), 200
    record.prompt_blocked = is_blocked
    text = body if isinstance(body, str) else json.dumps(body)
    return web.json_response(text=text, headers=weir_headers(record))
