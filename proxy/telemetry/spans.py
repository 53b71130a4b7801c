"""A finished request as spans: our own, the call to the upstream, the guard on the prompt and on the answer.

Names and attributes are OpenTelemetry's, for HTTP and for generative AI, where it has some, and `weir.` where it has
none: its conventions for guardrails are not released. No text is in any of them, unless a policy tells content.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.base import Note
from proxy.records import ChannelRecord, Record, RequestOutcome
from proxy.redaction import Redactor
from proxy.telemetry.context import SpanContext, new_span_id
from proxy.telemetry.providers import operation_of, provider_of
from proxy.telemetry.request import Interval, RequestNotes

Value = str | bool | int | float | list[str]
# What a client may name: a flood of long names is bounded here.
MAX_NAME_CHARACTERS = 256
# Characters of prompts or answers in one span. Collectors refuse far larger ones.
MAX_CONTENT_CHARACTERS = 32_768
ERROR = re.compile(r"[A-Za-z][A-Za-z_]{1,63}")
SERVER, CLIENT, INTERNAL = "server", "client", "internal"


@dataclass(frozen=True, slots=True)
class SpanEvent:
    name: str
    at: float  # seconds since 1970
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    name: str
    kind: str
    context: SpanContext
    parent: SpanContext | None
    begin: float  # seconds since 1970
    end: float
    attributes: Mapping[str, Value]
    events: tuple[SpanEvent, ...] = ()
    linked: SpanContext | None = None
    is_error: bool = False


def spans_of(record: Record, notes: RequestNotes, redactor: Redactor) -> list[Span]:
    """At least the request's own, which comes first."""
    found = [_request_span(record, notes)]
    for make in (_upstream_span, _prompt_span, _answer_span):
        span = make(record, notes, redactor)
        if span is not None:
            found.append(span)
    return found


def _request_span(record: Record, notes: RequestNotes) -> Span:
    is_error = record.outcome is RequestOutcome.ERROR or record.status >= 500
    attributes: dict[str, Value | None] = {
        "http.request.method": notes.method,
        "http.route": record.endpoint,
        "url.path": record.endpoint,
        "url.scheme": "http",
        "http.response.status_code": record.status or None,
        "error.type": (notes.error or "_OTHER") if is_error else None,
        "gen_ai.request.model": _name(record.model),
        "weir.request_id": record.request_id,
        "weir.outcome": str(record.outcome),
        "weir.error": notes.error,
        "weir.policy": record.policy,
        "weir.key": record.key,
        "weir.upstream": record.upstream,
        "weir.scanned": str(record.scanned),
        "weir.passthrough": record.passthrough,
    }
    first = record.first_byte_seconds
    events = () if first is None else (SpanEvent("weir.first_byte", record.started + first),)
    name = f"{notes.method} {record.endpoint}"
    place, end = notes.place, record.started + record.seconds
    known = _known(attributes)
    return Span(
        name, SERVER, place.own, place.parent, record.started, end, known, events, place.linked, is_error=is_error
    )


def _upstream_span(record: Record, notes: RequestNotes, redactor: Redactor) -> Span | None:
    called = notes.called
    if notes.upstream is None or called is None:
        return None
    begin, _ = notes.upstream
    head, facts = record.upstream_first_byte_seconds, notes.facts
    operation = operation_of(record.endpoint, called.dialect)
    status = notes.upstream_status
    error = str(status) if status is not None and status >= 400 else None
    if error is None and (notes.error or "").startswith("upstream_"):
        error = notes.error
    attributes: dict[str, Value | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider_of(called.dialect, called.address) if operation else None,
        "gen_ai.request.model": _name(record.model),
        "gen_ai.request.stream": record.stream or None,
        "gen_ai.response.id": facts.id,
        "gen_ai.response.model": facts.model,
        "gen_ai.response.finish_reasons": [facts.reasons[number] for number in sorted(facts.reasons)] or None,
        "gen_ai.response.time_to_first_chunk": head - begin if head is not None and record.stream else None,
        "server.address": called.address,
        "server.port": called.port,
        "http.response.status_code": status,
        "error.type": error,
    }
    attributes |= {f"gen_ai.usage.{name}": count for name, count in facts.counts().items()}
    attributes |= _content(record, notes, redactor)
    events = () if head is None else (SpanEvent("weir.upstream_first_byte", record.started + head),)
    own = SpanContext(notes.place.own.trace_id, notes.upstream_id)
    name = f"{operation} {_name(record.model) or ''}".rstrip() if operation else f"{notes.method} {record.endpoint}"
    return _child(name, CLIENT, own, record, notes, notes.upstream, attributes, events, is_error=error is not None)


def _prompt_span(record: Record, notes: RequestNotes, _: Redactor) -> Span | None:
    if notes.prompt is None:
        return None
    attributes: dict[str, Value | None] = {
        "weir.guard.model": record.guard,
        "weir.guard.tokens": record.prompt_tokens,
        "weir.guard.dropped_turns": record.dropped_turns or None,
        "weir.guard.is_flagged": record.prompt_flagged,
        "weir.guard.is_blocked": record.prompt_blocked,
        **_risk(record.prompt),
    }
    error = _guard_error(record) if record.prompt is None else None
    own = SpanContext(notes.place.own.trace_id, new_span_id())
    attributes["error.type"] = error
    return _child("guard prompt", INTERNAL, own, record, notes, notes.prompt, attributes, is_error=error is not None)


def _answer_span(record: Record, notes: RequestNotes, _: Redactor) -> Span | None:
    if notes.answer is None:
        return None
    error = _guard_error(record)
    attributes: dict[str, Value | None] = {
        "weir.guard.model": record.guard,
        "weir.guard.tokens": sum(channel.tokens for channel in record.channels),
        "weir.guard.batches": notes.batches,
        "weir.guard.lag_p50_seconds": record.guard_lag_p50_seconds,
        "weir.guard.lag_max_seconds": record.guard_lag_max_seconds,
        "weir.guard.window_slides": record.window_slides or None,
        "weir.characters.received": sum(channel.received for channel in record.channels),
        "weir.characters.scanned": sum(channel.scanned for channel in record.channels),
        "weir.characters.delivered": sum(channel.delivered for channel in record.channels),
        "error.type": error,
    }
    at = record.started + notes.answer[1]
    events = tuple(_flag_event(channel, at) for channel in record.channels if channel.flagged is not None)
    own = SpanContext(notes.place.own.trace_id, new_span_id())
    is_error = error is not None
    return _child("guard stream", INTERNAL, own, record, notes, notes.answer, attributes, events, is_error=is_error)


def _child(
    name: str,
    kind: str,
    own: SpanContext,
    record: Record,
    notes: RequestNotes,
    interval: Interval,
    attributes: Mapping[str, Value | None],
    events: tuple[SpanEvent, ...] = (),
    *,
    is_error: bool,
) -> Span:
    begin, end = (record.started + seconds for seconds in interval)
    return Span(name, kind, own, notes.place.own, begin, end, _known(attributes), events, is_error=is_error)


def _flag_event(channel: ChannelRecord, at: float) -> SpanEvent:
    """Where a text was flagged, and whether it ended there. Offsets, never the text."""
    place = {
        "weir.channel": channel.channel[:MAX_NAME_CHARACTERS],
        "weir.choice": channel.choice,
        "weir.start": channel.flagged.start if channel.flagged else None,
        "weir.end": channel.flagged.end if channel.flagged else None,
        **_risk(channel.flagged),
    }
    return SpanEvent("weir.cut" if channel.is_cut else "weir.flag", at, _known(place))


def _risk(note: Note | None) -> dict[str, Value | None]:
    if note is None:
        return {}
    return {
        "weir.risk.level": note.risk_level,
        "weir.risk.category": note.category,
        "weir.risk.probability": note.probability,
    }


def _guard_error(record: Record) -> str | None:
    """The class of the guard's failure, by the name that the record begins with."""
    found = ERROR.match(record.error or "")
    return found[0] if found is not None and found[0].startswith("Guard") else None


def _content(record: Record, notes: RequestNotes, redactor: Redactor) -> dict[str, Value | None]:
    """In the shape of the conventions' messages, which are JSON on spans. Of too much the oldest is left out."""
    if not notes.tells_text:
        return {}
    said = record.said(redactor)
    asked: list[dict[str, Any]] = []
    left = MAX_CONTENT_CHARACTERS
    for message in reversed(said.prompt):
        texts = [text[:left] for text in _texts(message.get("content"))]
        left -= sum(map(len, texts))
        asked.insert(0, {"role": str(message.get("role", "user")), "parts": [*map(_part, texts)]})
    choices: dict[int, list[dict[str, str]]] = {}
    left = MAX_CONTENT_CHARACTERS
    for key, text in said.texts:
        choices.setdefault(key.choice, []).append(_part(text[:left]))
        left = max(0, left - len(text))
    reasons = notes.facts.reasons
    answers = [
        {"role": "assistant", "parts": parts, "finish_reason": reasons.get(choice, "")}
        for choice, parts in sorted(choices.items())
    ]
    return {
        "gen_ai.input.messages": json.dumps(asked, ensure_ascii=False),
        "gen_ai.output.messages": json.dumps(answers, ensure_ascii=False),
    }


def _texts(content: Any) -> list[str]:
    parts = content if isinstance(content, list) else [{"text": content}]
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "content": text}


def _name(text: str) -> str | None:
    return text[:MAX_NAME_CHARACTERS] or None


def _known(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None and value != ""}
