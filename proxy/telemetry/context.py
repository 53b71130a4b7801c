"""Which trace a request belongs to: W3C `traceparent`, read and written. https://www.w3.org/TR/trace-context/"""

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from proxy.telemetry_settings import TelemetrySettings

# A later version may say more behind the flags; of 00 that would be a mistake.
PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.{0,256})?")
SAMPLED = 1
TRACE_HEADERS = frozenset({"traceparent", "tracestate"})


@dataclass(frozen=True, slots=True)
class SpanContext:
    trace_id: int  # 128 bits, not 0
    span_id: int  # 64 bits, not 0
    is_sampled: bool = True

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{SAMPLED if self.is_sampled else 0:02x}"


@dataclass(frozen=True, slots=True)
class Place:
    """Of a request among traces: its own span, and whose child or kin it is."""

    own: SpanContext
    parent: SpanContext | None = None
    linked: SpanContext | None = None


def read_traceparent(given: Sequence[str]) -> SpanContext | None:
    """None where there is none, more than one, or one that cannot be read."""
    found = PARENT.fullmatch(given[0].strip()) if len(given) == 1 else None
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id:
        return None
    return SpanContext(trace_id, span_id, bool(int(found[4], 16) & SAMPLED))


def place_among(client: SpanContext | None, settings: TelemetrySettings) -> Place:
    if client is not None and settings.client_traces == "join":
        return Place(SpanContext(client.trace_id, new_span_id(), client.is_sampled), parent=client)
    own = SpanContext(random.getrandbits(128) or 1, new_span_id(), random.random() < settings.sample)
    return Place(own, linked=client if settings.client_traces == "link" else None)


def new_span_id() -> int:
    return random.getrandbits(64) or 1


def sent_headers(
    headers: Mapping[str, str], wanted: Literal["client", "own", "none"], span: SpanContext, *, is_joined: bool
) -> Mapping[str, str]:
    """What an upstream is told. `tracestate` belongs to the client's trace, and goes no further than that."""
    if wanted == "client":
        return headers
    if wanted == "none":
        return without_trace(headers)
    kept = without_trace(headers, {"traceparent"} if is_joined else TRACE_HEADERS)
    return kept | {"traceparent": span.traceparent}


def without_trace(headers: Mapping[str, str], names: Collection[str] = TRACE_HEADERS) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name.lower() not in names}
