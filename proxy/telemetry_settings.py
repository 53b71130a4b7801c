"""`[telemetry]`: whether and where one trace a request is sent to, and what it tells."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from proxy.setting_types import Section, not_bool, spelled

ENDPOINTS = "must be an http:// or https:// URL, without a user name and without a # fragment"
Endpoint = Annotated[str, spelled(r"https?://[^\s@#/][^\s@#]{0,1000}", ENDPOINTS)]
Share = Annotated[float, BeforeValidator(not_bool), Field(ge=0, le=1, allow_inf_nan=False)]


class TelemetrySettings(Section):
    """Traces for an OpenTelemetry collector: needs weir-proxy[otel], and is off unless an endpoint is set."""

    endpoint: Endpoint | None = None
    """OTLP over HTTP, such as http://127.0.0.1:4318; unset, the OTEL_EXPORTER_OTLP_... variables say it, if they do."""
    sample: Share = 1.0
    """Share of requests that are traced; where a client's trace is joined, the client decides."""
    client_traces: Literal["link", "join", "ignore"] = "link"
    """A client's traceparent: link to it from a trace of our own, join it, or ignore it."""
    upstream_traces: Literal["client", "own", "none"] = "client"
    """Which traceparent an upstream gets: what the client has sent, that of our span, or none."""
    content: bool = False
    """Tell what was said, too: prompts and answers, without keys; a policy's trace_content goes before it."""
