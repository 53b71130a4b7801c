"""A collector of OpenTelemetry traces: a real OTLP/HTTP receiver on loopback, which decodes what it gets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes import listening

PATH = "/v1/traces"
SERVER, ERROR = 2, 2  # as the protocol numbers kinds of spans, and states


@dataclass(frozen=True)
class Told:
    """A span as it came over the wire."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    begin: int  # nanoseconds since 1970
    end: int
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    links: list[tuple[str, str]]
    is_error: bool
    resource: dict[str, Any]


@dataclass
class Collector:
    status: int = 200
    is_silent: bool = False  # it takes a request, and never answers
    spans: list[Told] = field(default_factory=list)
    raw: bytes = b""  # all that came
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Collector"]:
        app = web.Application()
        app.router.add_post(PATH, self._take)
        async with listening(app) as self.url:
            yield self

    async def until_asked(self) -> None:
        async with asyncio.timeout(30):
            await self.asked.wait()

    def trace(self, outcome: str) -> dict[str, Told]:
        """The spans of the one request that is there, by their names; its own is "server"."""
        [own] = [one for one in self.spans if one.kind == SERVER]
        assert own.attributes["weir.outcome"] == outcome, own.attributes
        return {"server": own} | {one.name: one for one in self.spans if one is not own}

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.headers.append(dict(request.headers))
        self.asked.set()
        if self.is_silent:
            await asyncio.sleep(3600)
        if self.status == 200:
            self.raw += body
            self.spans += read(body)
        # An empty message says that all was taken.
        return web.Response(status=self.status, content_type="application/x-protobuf")


def read(body: bytes) -> list[Told]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # of an extra

    message = ExportTraceServiceRequest.FromString(body)
    return [
        Told(
            one.name,
            one.kind,
            one.trace_id.hex(),
            one.span_id.hex(),
            one.parent_span_id.hex(),
            one.start_time_unix_nano,
            one.end_time_unix_nano,
            values(one.attributes),
            {event.name: values(event.attributes) for event in one.events},
            [(link.trace_id.hex(), link.span_id.hex()) for link in one.links],
            one.status.code == ERROR,
            values(spans.resource.attributes),
        )
        for spans in message.resource_spans
        for scope in spans.scope_spans
        for one in scope.spans
    ]


def values(attributes: Any) -> dict[str, Any]:
    return {one.key: value(one.value) for one in attributes}


def value(found: Any) -> Any:
    kind = found.WhichOneof("value")
    return [value(one) for one in found.array_value.values] if kind == "array_value" else getattr(found, kind)
