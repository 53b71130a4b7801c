"""What can be set: a model a section of `weir.toml`, a docstring a key. `config` reads them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from proxy.admin_settings import AdminSettings
from proxy.auth_settings import AuthSettings
from proxy.guard_settings import GuardSettings as GuardSettings
from proxy.guard_settings import guard_faults
from proxy.policy_settings import PolicySettings, RuleSettings
from proxy.record_settings import RecordSettings
from proxy.server_settings import ServerSettings
from proxy.setting_types import (
    MIB,
    Bytes,
    Count,
    FileBytes,
    Line,
    Seconds,
    Section,
    ShortName,
    words,
)
from proxy.telemetry_settings import TelemetrySettings

Dialect = Literal["openai", "anthropic", "gemini"]
LogLevel = Literal["debug", "info", "warning", "error"]
Family = Literal[
    "embeddings", "files", "uploads", "audio", "images", "batches", "vector-stores", "stored-completions",
    "moderations-upstream", "message-batches", "count-tokens",
]  # fmt: skip


class UpstreamSettings(Section):
    """The LLM API behind us, or one of several."""

    name: ShortName = "default"
    """Named in records, and in the variables of one of several: WEIR_UPSTREAM__NAME__API_KEY."""
    models: Annotated[tuple[Line, ...], Field(min_length=1, max_length=1000)] | None = None
    """Patterns of the models that it serves, such as "claude-*"; without them, all that no other one does."""
    base_url: str | None = None
    """The API's base URL, with or without /v1. `weir serve` needs it."""
    dialect: Dialect = "openai"
    """What it speaks; chat completions are told to the other two in their own words."""
    default_max_tokens: Annotated[Count, Field(ge=1, le=10_000_000)] = 8192
    """The limit of an answer where a request sets none, and the dialect (anthropic) wants one."""
    api_key: SecretStr | None = None
    """Sent upstream in place of the client's credential; without it the client's own is forwarded."""
    client_key: bool | None = None
    """Forward the client's own credential; unset, that is so where there is one upstream and no api_key."""
    policy: ShortName | None = None
    """The policy of requests that no rule fits; without it, [policy]."""
    connect_seconds: Seconds = 10.0
    """Longest wait for a connection, or for a free one of the pool."""
    first_byte_seconds: Seconds = 120.0
    """Longest wait for the head of a response."""
    idle_seconds: Seconds = 120.0
    """Longest silence within a response."""
    total_seconds: Seconds = 3600.0
    """Longest response."""
    max_connections: Annotated[Count, Field(ge=1, le=1_000_000)] = 2000
    """Size of the connection pool."""
    keep_seconds: Seconds = 4.0
    """Longest rest of a connection that is used again; less than the 5 s after which uvicorn and Node close theirs."""
    max_event_bytes: Bytes = 4 * MIB
    """Largest server-sent event."""
    max_body_bytes: Bytes = 64 * MIB
    """Largest body of an answer that is not streamed."""

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str | None) -> str | None:
        if url is not None and (reason := url_fault(url)):
            raise ValueError(reason)
        return url

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, key: SecretStr | None) -> SecretStr | None:
        # It becomes a header: a line break in it would begin a second one.
        if key is not None and not re.fullmatch(r"[\x21-\x7e]+", key.get_secret_value()):
            raise ValueError("must be printable ASCII characters without spaces, at least one")
        return key

    @model_validator(mode="after")
    def _check_client_key(self) -> "UpstreamSettings":
        if self.client_key and self.api_key is not None:
            raise ValueError("client_key is true, but with an api_key the client's own is never forwarded")
        return self


class AnnotationSettings(Section):
    """What an answer tells of its risks."""

    weir: bool = True
    """Add our `weir` object to what is sent."""
    openai: bool = False
    """Add OpenAI's `moderation` object, asked for or not."""
    azure: bool = False
    """Add Azure's `content_filter_results` and `prompt_filter_results`, where answers have choices."""
    client_may_ask: bool = True
    """Let a client ask for more: by the `moderation` field of OpenAI's API, or by a header, x-weir-annotations."""


class PassthroughSettings(Section):
    """Routes that nobody can judge, which are refused unless they are named here."""

    allow: Annotated[tuple[Family, ...], BeforeValidator(words)] = ()
    """Families of routes that pass as they are in both directions, labelled unscanned: see docs/upstreams.md."""
    upstream: Line | None = None
    """The name of the upstream that gets them; without it, the one that has no `models`."""
    max_upload_bytes: FileBytes = 512 * MIB
    """Largest request body."""
    max_answer_bytes: FileBytes = 1024 * MIB
    """Largest answer."""
    idle_seconds: Seconds = 30.0
    """Longest silence within a request body."""


class LogSettings(Section):
    """One line of JSON a request, without content and without keys."""

    level: LogLevel = "info"
    """The least level that is written."""
    file: Path | None = None
    """Append the log to this file; without it, it goes to standard error."""


class Settings(Section):
    """Everything that can be set."""

    server: ServerSettings = ServerSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    upstream_tables: dict[str, UpstreamSettings] = Field(default_factory=dict)
    """Each `[[upstream]]` of a file that lists several, in its order; such a file has no [upstream] besides."""
    guard: GuardSettings = GuardSettings()
    policy: PolicySettings = PolicySettings()
    policies: dict[ShortName, PolicySettings] = Field(default_factory=dict)
    """More policies, each by its name; what one does not set is as [policy] has it."""
    rules: tuple[RuleSettings, ...] = ()
    """Which requests get which of them: the first rule that fits; where none does, [policy]."""
    annotations: AnnotationSettings = AnnotationSettings()
    auth: AuthSettings = AuthSettings()
    passthrough: PassthroughSettings = PassthroughSettings()
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()
    records: RecordSettings = RecordSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def upstreams(self) -> tuple[UpstreamSettings, ...]:
        """At least one. The first whose `models` match serves a model."""
        return tuple(self.upstream_tables.values()) or (self.upstream,)


def cross_faults(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong between settings that are each right: the path of one of them, and why it cannot stand."""
    yield from _lonely_workers(settings)
    yield from ((("guard", key), reason) for key, reason in guard_faults(settings.guard))
    for name in settings.policies:
        if name == settings.policy.name:
            yield ("policies", name), "has the name that [policy] has"
    policies = (settings.policy.name, *settings.policies)
    upstreams = [upstream.name for upstream in settings.upstreams]
    keys = [key.name for key in settings.auth.keys]
    if (wanted := settings.passthrough.upstream) is not None and wanted not in upstreams:
        yield ("passthrough", "upstream"), f'names no upstream, "{wanted}"; there are {", ".join(upstreams)}'
    yield from _policies_of_upstreams(settings, policies)
    for number, rule in enumerate(settings.rules):
        if rule.policy not in policies:
            yield ("rules", str(number), "policy"), f'names no policy, "{rule.policy}"; there are {", ".join(policies)}'
        for name in set(rule.upstreams or ()) - {*upstreams}:
            yield ("rules", str(number), "upstreams"), f'names no upstream, "{name}"; there are {", ".join(upstreams)}'
        for name in set(rule.keys or ()) - {*keys}:
            yield ("rules", str(number), "keys"), f'names no key, "{name}"; there are {", ".join(keys) or "none"}'


def _lonely_workers(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    if settings.server.workers > 1 and settings.guard.is_in_a_thread:
        needed = "the guard in a process of its own, [guard] process"
        if settings.guard.backend == "remote-code":
            needed = 'another [guard] backend: "remote-code" runs in one process'
        yield ("server", "workers"), f"is more than 1, and needs {needed}"


def _policies_of_upstreams(settings: Settings, policies: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    several: list[tuple[tuple[str, ...], UpstreamSettings]] = [
        (("upstream", name), one) for name, one in settings.upstream_tables.items()
    ]
    for path, one in several or [(("upstream",), settings.upstream)]:
        if one.policy is not None and one.policy not in policies:
            yield (*path, "policy"), f'names no policy, "{one.policy}"; there are {", ".join(policies)}'


def url_fault(url: str) -> str | None:
    """Why `url` cannot be an API's base, in words that never repeat it: it may hold a password."""
    if not re.fullmatch(r"[\x21-\x7e]+", url):
        return "must be a URL, of printable ASCII characters without spaces"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "must be a URL; its host or port cannot be read"
    faults = {
        "must start with http:// or https://": parts.scheme not in ("http", "https"),
        "must name a host": not host,
        "must not hold a user name or password; api_key is the place for a key": "@" in parts.netloc,
        "must not hold a # fragment": "#" in url,
    }
    return next((reason for reason, is_fault in faults.items() if is_fault), None)
