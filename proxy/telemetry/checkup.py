"""Whether traces arrive, for `weir doctor`: a message without spans is a question that a collector answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxy.config_file import ConfigError
from proxy.telemetry.endpoint import endpoint_of
from proxy.telemetry.exporter import open_sender
from proxy.telemetry_settings import TelemetrySettings


@dataclass(frozen=True, slots=True)
class Found:
    status: str  # ok, warn, fail
    said: str
    todo: str = ""


def check_traces(settings: TelemetrySettings, environ: Mapping[str, str]) -> Found | None:
    """None where they are off. Blocks, for as long as one message may take."""
    try:
        found = endpoint_of(settings, environ)
        if found is None:
            return None
        sender = open_sender(*found)
    except ConfigError as exc:
        return Found("fail", str(exc))
    try:
        is_taken = sender.send([])
    finally:
        sender.close()
    endpoint, said_by = found
    place = urlsplit(endpoint).netloc.rpartition("@")[2]  # what is before it may be a password
    if is_taken:
        return Found("ok", f"the collector at {place} takes them")
    said = f"the collector at {place} does not take them; streams go on without"
    return Found("warn", said, f"{said_by} says where it is, OTEL_EXPORTER_OTLP_HEADERS who asks.")
