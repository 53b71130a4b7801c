"""What is noted of a request for its spans while it is served. Times are seconds from its beginning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from proxy.settings import UpstreamSettings
from proxy.telemetry.answer import AnswerFacts
from proxy.telemetry.context import Place, SpanContext, new_span_id, sent_headers
from proxy.telemetry_settings import TelemetrySettings

Interval = tuple[float, float]


@dataclass(slots=True)
class Called:
    """The upstream that a request went to."""

    dialect: str
    address: str
    port: int


@dataclass(slots=True)
class RequestNotes:
    place: Place
    method: str
    settings: TelemetrySettings
    upstream_id: int = field(default_factory=new_span_id)  # of the span of the call to the upstream
    called: Called | None = None
    upstream: Interval | None = None  # while it is called, its end is its begin
    upstream_status: int | None = None
    prompt: Interval | None = None
    answer: Interval | None = None
    batches: int = 0  # that the guard was asked to judge
    error: str | None = None  # the code of what the client was told
    facts: AnswerFacts = field(default_factory=AnswerFacts)
    tells_text: bool = False

    def call(self, upstream: UpstreamSettings, at: float) -> None:
        self.called = Called(upstream.dialect, *place_of(upstream.base_url or ""))
        self.upstream = (at, at)

    def end_call(self, at: float) -> None:
        if self.upstream is not None:
            self.upstream = (self.upstream[0], at)

    def sent_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Those of the client, as they go on to the upstream."""
        own = self.place.own
        span = SpanContext(own.trace_id, self.upstream_id, own.is_sampled)
        return sent_headers(headers, self.settings.upstream_traces, span, is_joined=self.place.parent is not None)

    @property
    def spans(self) -> int:
        """How many it will be."""
        return 1 + sum(one is not None for one in (self.upstream, self.prompt, self.answer))

    @property
    def bytes_held(self) -> int:
        """About what it takes of memory, beside the record."""
        return 1000


def place_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
