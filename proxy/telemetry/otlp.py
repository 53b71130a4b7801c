"""Spans as OTLP over HTTP, by OpenTelemetry's own SDK. Imported only where traces are on.

Headers, timeout, compression and certificates are what the standard OTEL_EXPORTER_OTLP_... variables say.
"""

import logging
import os
import time
import uuid
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import SpanContext as OtelContext

from proxy import __version__
from proxy.telemetry.context import SpanContext
from proxy.telemetry.spans import CLIENT, INTERNAL, SERVER, Span

KINDS = {SERVER: SpanKind.SERVER, CLIENT: SpanKind.CLIENT, INTERNAL: SpanKind.INTERNAL}
NANOSECONDS = 1_000_000_000


class OtlpSender:
    """One thread's, but for `close`."""

    def __init__(self, endpoint: str) -> None:
        # What is lost we count and tell ourselves, once a minute; the library would tell each try, with its address.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = OTLPSpanExporter(endpoint=endpoint)
        self._ids, self._ended = _Ids(), _Ended()
        provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource(), id_generator=self._ids, shutdown_on_exit=False
        )
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("weir", __version__)

    def send(self, spans: Sequence[Span]) -> bool:
        for span in spans:
            self._make(span)
            time.sleep(0)  # an event loop that waits for the interpreter gets it now, not after all of them
        made, self._ended.spans = self._ended.spans, []
        return bool(self._exporter.export(made) is SpanExportResult.SUCCESS)

    def close(self) -> None:
        self._exporter.shutdown()

    def _make(self, span: Span) -> None:
        """As an instrumented program would, but afterwards, with the times and ids that were noted."""
        self._ids.context = span.context
        parent = Context()
        if span.parent is not None:
            parent = set_span_in_context(NonRecordingSpan(_otel(span.parent)), parent)
        links = [] if span.linked is None else [Link(_otel(span.linked))]
        made = self._tracer.start_span(
            span.name, parent, KINDS[span.kind], dict(span.attributes), links, int(span.begin * NANOSECONDS)
        )
        for event in span.events:
            made.add_event(event.name, dict(event.attributes), int(event.at * NANOSECONDS))
        if span.is_error:
            made.set_status(Status(StatusCode.ERROR))
        made.end(int(span.end * NANOSECONDS))


def resource() -> Resource:
    """Who sends: each process has an instance id of its own. What OTEL_RESOURCE_ATTRIBUTES says goes before it."""
    own: dict[str, str | int] = {
        "service.name": "weir",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),
    }
    return Resource.create(own).merge(OTELResourceDetector().detect())


def _otel(context: SpanContext) -> OtelContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.is_sampled else TraceFlags.DEFAULT)
    return OtelContext(context.trace_id, context.span_id, is_remote=True, trace_flags=flags)


class _Ids(IdGenerator):
    """The ids that a request had from its beginning: its upstream may know them already."""

    context = SpanContext(1, 1)

    def generate_trace_id(self) -> int:
        return self.context.trace_id

    def generate_span_id(self) -> int:
        return self.context.span_id


class _Ended(SpanProcessor):
    """Keeps what was made until it is sent."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)
