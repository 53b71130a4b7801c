"""Where traces go to. `[telemetry] endpoint` goes before the variables that all OpenTelemetry programs read."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from proxy.config_file import ConfigError
from proxy.telemetry_settings import TelemetrySettings

TRACES_PATH = "/v1/traces"
SETTING = "[telemetry] endpoint"
TRACES, ALL = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"


def endpoint_of(settings: TelemetrySettings, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The whole URL, and who has set it; None where traces are off. Raises ConfigError.

    A bare host gets the usual path. An empty variable is none, as the specification has it.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if settings.endpoint is not None:
        found = (_with_path(settings.endpoint), SETTING)
    elif environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    elif given := environ.get(TRACES):
        found = (given, TRACES)
    elif given := environ.get(ALL):
        found = (given.rstrip("/") + TRACES_PATH, ALL)
    else:
        return None
    _check_protocol(environ)
    return found


def _with_path(url: str) -> str:
    return url.rstrip("/") + TRACES_PATH if urlsplit(url).path in ("", "/") else url


def _check_protocol(environ: Mapping[str, str]) -> None:
    name = next((name for name in PROTOCOLS if environ.get(name)), None)
    if name is not None and environ[name] != PROTOCOL:
        raise ConfigError(f"{name} must be {PROTOCOL}, the one protocol that Weir speaks to a collector; or unset it.")
