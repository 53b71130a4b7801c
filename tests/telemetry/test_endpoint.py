"""Where traces go to, by which setting or variable, and when nowhere."""

import pytest

from proxy.config import ConfigError, load_settings
from proxy.telemetry.endpoint import endpoint_of

ALL, TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


def url(setting: str | None = None, **environ: str) -> str | None:
    overrides = {} if setting is None else {"telemetry.endpoint": setting}
    found = endpoint_of(load_settings(overrides=overrides, environ={}).telemetry, environ)
    return None if found is None else found[0]


def test_off_until_one_is_set() -> None:
    assert url() is None
    assert url(**{ALL: "", TRACES: ""}) is None


def test_the_setting_goes_before_the_variables_and_the_narrower_variable_before_the_other() -> None:
    given = {ALL: "http://all:4318", TRACES: "http://traces/x"}
    assert url("http://own:4318", **given) == "http://own:4318/v1/traces"
    assert url(**given) == "http://traces/x"
    assert url(**{ALL: "http://all:4318/base/"}) == "http://all:4318/base/v1/traces"


def test_a_bare_host_gets_the_usual_path_and_any_other_stays() -> None:
    assert url("https://c/") == "https://c/v1/traces"
    assert url("https://c/otlp/v1/traces?tenant=a") == "https://c/otlp/v1/traces?tenant=a"


def test_the_standard_ways_to_switch_it_off() -> None:
    assert url("http://own:4318", OTEL_SDK_DISABLED="True") is None
    assert url(**{ALL: "http://all:4318", "OTEL_TRACES_EXPORTER": "none"}) is None
    assert url("http://own:4318", OTEL_TRACES_EXPORTER="none") == "http://own:4318/v1/traces"


def test_another_protocol_is_refused_by_name() -> None:
    assert url("http://c", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf") == "http://c/v1/traces"
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf"):
        url("http://c", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert url(OTEL_EXPORTER_OTLP_PROTOCOL="grpc") is None


@pytest.mark.parametrize("given", ["collector:4318", "ftp://c", "http://", "http://user:canary@c", "http://c/#x"])
def test_what_is_no_endpoint_is_refused_without_repeating_it(given: str) -> None:
    with pytest.raises(ConfigError, match="endpoint must be an http:// or https:// URL") as caught:
        url(given)
    assert "canary" not in str(caught.value)
