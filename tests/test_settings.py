"""What each key may be."""

import re

import pytest
from pydantic import SecretStr, ValidationError

from proxy.policy_settings import RuleSettings
from proxy.server_settings import ServerSettings
from proxy.setting_names import SECTIONS
from proxy.setting_types import Section
from proxy.settings import Settings, UpstreamSettings, url_fault


def sections() -> dict[str, type[Section]]:
    return {**SECTIONS, "rules": RuleSettings}


def test_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.guard.model == "embedded"
    assert settings.guard.on_failure == "closed"
    assert (settings.policy.mode, settings.policy.on_flag, settings.policy.debounce) == ("loose", "block", 2)
    assert settings.policy.release == "hold"
    assert settings.policy.allow_unscanned is False


def test_every_key_says_what_it_is_for() -> None:
    for name, section in sections().items():
        for key, field in section.model_fields.items():
            assert re.fullmatch(r".{10,}[.]", field.description or ""), f"[{name}] {key}"


def test_defaults_pass_their_own_bounds() -> None:
    for name, section in sections().items():
        example = section(policy="x") if section is RuleSettings else section()
        assert section.model_validate(example.model_dump()) == example, name


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ServerSettings().port = 1


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "http://127.0.0.1:8000",
        "http://[::1]:8000/v1/",
        "https://gateway.example/a/b?api-version=2026-01-01",
        "HTTPS://UPPER.example",
    ],
)
def test_a_base_url_may_have_a_port_a_path_and_a_query(url: str) -> None:
    assert url_fault(url) is None
    assert UpstreamSettings(base_url=url).base_url == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "must be a URL"),
        ("api.openai.com/v1", "http:// or https://"),
        ("ftp://host/", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("https://", "name a host"),
        ("https:///v1", "name a host"),
        ("https://:8080/v1", "name a host"),
        ("https://me:hunter2@host/v1", "user name or password"),
        ("https://hunter2@host/v1", "user name or password"),
        ("https://host/v1#hunter2", "fragment"),
        ("https://host/v1#", "fragment"),
        ("https://host:hunter2/v1", "cannot be read"),
        ("https://host:99999/v1", "cannot be read"),
        ("https://[::1/v1", "cannot be read"),
        ("https://host/v 1", "printable ASCII"),
        ("https://host/v1\r\nx: y", "printable ASCII"),
        ("https://hôst/v1", "printable ASCII"),
    ],
)
def test_a_base_url_that_cannot_be_meant_is_refused_without_being_repeated(url: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason)) as caught:
        UpstreamSettings(base_url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["", " ", "sk-canary x", "sk-canary\r\nx-admin: 1", "sk-canäry"])
def test_a_key_that_cannot_be_a_header_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(ValidationError, match="printable ASCII") as caught:
        UpstreamSettings(api_key=SecretStr(key))
    assert "canary" not in str(caught.value)


def test_the_upstream_key_is_never_printed() -> None:
    settings = Settings(upstream=UpstreamSettings(api_key=SecretStr("sk-canary")))
    assert "canary" not in f"{settings!r} {settings} {settings.model_dump_json()}"
