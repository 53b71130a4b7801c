"""The thread that sends spans. Whatever becomes of the collector, `put` returns at once and memory stays bounded.

What does not fit into the queue, or cannot be sent in its time, is dropped and counted: a trace is worth no stream.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from proxy.config_file import ConfigError
from proxy.errors import place_of
from proxy.records import Record
from proxy.redaction import Redactor
from proxy.settings import Settings
from proxy.store.places import secrets_of
from proxy.telemetry.context import place_among, read_traceparent, without_trace
from proxy.telemetry.endpoint import SETTING, endpoint_of
from proxy.telemetry.request import RequestNotes
from proxy.telemetry.spans import Span, spans_of
from proxy.telemetry_settings import TelemetrySettings

LOGGER = logging.getLogger("weir.telemetry")

# Requests that wait to be sent. At 200 requests a second, a stall of 10 s loses none.
MAX_QUEUED = 2048
MAX_QUEUED_BYTES = 32 << 20
# Requests of one message: few, since the event loop waits for the interpreter while they are encoded, some 0.3 ms each.
BATCH_REQUESTS = 16
# How long a first one waits for others.
GATHER_SECONDS = 1.0
# How long a stop waits for what is queued.
CLOSE_SECONDS = 3.0
# Between two lines of the log that say that traces are being lost.
TELL_SECONDS = 60.0

Count = Callable[[str, int], None]  # "exported" or "dropped", and how many spans


class Sender(Protocol):
    """May block, but not for ever; `close` frees whoever is blocked by its waits."""

    def send(self, spans: Sequence[Span]) -> bool: ...

    def close(self) -> None: ...


class Telemetry:
    """`put` is for any thread. Use from `start` to `close`."""

    def __init__(
        self,
        settings: TelemetrySettings,
        sender: Sender,
        count: Count,
        redactor: Redactor,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._settings = settings
        self._sender, self._count, self._redactor = sender, count, redactor
        self._max_queued = max_queued
        self._queue: deque[tuple[Record, RequestNotes]] = deque()
        self._bytes = 0  # of the queue
        self._change = threading.Condition()
        self._is_closing = False
        self._lost, self._next_tell = 0, 0.0
        self._thread = threading.Thread(target=self._run, name="weir-traces", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def follow(self, record: Record, method: str, traceparents: Sequence[str]) -> None:
        """Have it noted in the record what its spans need."""
        place = place_among(read_traceparent(traceparents), self._settings)
        record.follow(RequestNotes(place, method, self._settings))

    def untraced(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Those of a client whose request has no span, as they go on to the upstream."""
        return headers if self._settings.upstream_traces == "client" else without_trace(headers)

    def put(self, record: Record) -> None:
        """Never waits for the collector. The record must not change any more."""
        notes = record.notes
        if notes is None or not notes.place.own.is_sampled:
            return
        size = record.bytes_held + notes.bytes_held
        with self._change:
            has_room = len(self._queue) < self._max_queued and self._bytes + size <= MAX_QUEUED_BYTES
            if has_room and not self._is_closing:
                self._queue.append((record, notes))
                self._bytes += size
                if len(self._queue) in (1, BATCH_REQUESTS):
                    self._change.notify()
                return
        self._drop(notes.spans)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Send what is queued, if that can be done in time."""
        deadline = time.monotonic() + seconds
        with self._change:
            self._is_closing = True
            self._change.notify()
        self._thread.join(seconds)
        self._sender.close()  # a wait between two tries ends with it
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._change:
            left = [notes.spans for _, notes in self._queue]
            self._queue.clear()
        if left:
            self._drop(sum(left))
        if self._lost:
            LOGGER.warning("traces: %d spans were lost", self._lost)

    def _run(self) -> None:
        while batch := self._next():
            spans = [span for record, notes in batch for span in self._spans(record, notes)]
            if not spans:
                continue
            try:
                is_sent = self._sender.send(spans)
            except Exception as exc:  # a library's mistake costs one batch, not all that follow
                LOGGER.error("traces: some cannot be sent: %s", place_of(exc))
                is_sent = False
            if is_sent:
                self._count("exported", len(spans))
            else:
                self._drop(len(spans))

    def _next(self) -> list[tuple[Record, RequestNotes]]:
        """Some, as soon as there are enough or they have waited; none once there never will be any."""
        with self._change:
            self._change.wait_for(lambda: self._queue or self._is_closing)
            self._change.wait_for(lambda: len(self._queue) >= BATCH_REQUESTS or self._is_closing, GATHER_SECONDS)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_REQUESTS))]
            self._bytes -= sum(record.bytes_held + notes.bytes_held for record, notes in batch)
        return batch

    def _spans(self, record: Record, notes: RequestNotes) -> list[Span]:
        try:
            return spans_of(record, notes, self._redactor)
        except Exception as exc:  # a mistake of ours costs one trace
            LOGGER.error("traces: one cannot be told: %s", place_of(exc))
            return []

    def _drop(self, spans: int) -> None:
        self._count("dropped", spans)
        self._lost += spans
        if time.monotonic() >= self._next_tell:
            LOGGER.warning("traces: the collector does not take them; %d spans were lost so far", self._lost)
            self._next_tell = time.monotonic() + TELL_SECONDS


def require_exporter(settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError where traces are wanted and cannot be sent."""
    if found := endpoint_of(settings.telemetry, environ):
        open_sender(*found)


def open_sender(endpoint: str, said_by: str) -> Sender:
    """Raises ConfigError."""
    try:
        from proxy.telemetry.otlp import OtlpSender  # the packages of an extra
    except ImportError:
        off = "" if said_by == SETTING else ", or set OTEL_SDK_DISABLED=true"
        raise ConfigError(
            f"{said_by} is set, but OpenTelemetry's packages are not installed: pip install 'weir-proxy[otel]'{off}."
        ) from None
    return OtlpSender(endpoint)


@asynccontextmanager
async def open_telemetry(
    settings: Settings, count: Count, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Telemetry | None]:
    """The exporter, from start to stop; None where traces are off. Raises ConfigError."""
    found = endpoint_of(settings.telemetry, environ)
    if found is None:
        yield None
        return
    telemetry = Telemetry(settings.telemetry, open_sender(*found), count, Redactor(secrets_of(settings)))
    telemetry.start()
    try:
        yield telemetry
    finally:
        await asyncio.to_thread(telemetry.close)
