"""Which headers go to an upstream and come back from it: those of a list, by name."""

import re
from collections.abc import Mapping
from typing import Any

from proxy.identity import CREDENTIALS
from proxy.settings import Dialect

# Where the dialect looks for a key, and what it wants to hear where the client does not say it.
KEY_HEADERS: Mapping[Dialect, str] = {
    "openai": "authorization",
    "anthropic": "x-api-key",
    "gemini": "x-goog-api-key",
}
MORE: Mapping[Dialect, Mapping[str, str]] = {
    "openai": {},
    "anthropic": {"anthropic-version": "2023-06-01"},  # the only one there is
    "gemini": {},
}
REQUEST_HEADERS = re.compile(
    r"openai-(organization|project|beta)|anthropic-(version|beta)|idempotency-key|x-client-request-id|x-stainless-.*"
    r"|user-agent|traceparent|tracestate|http-referer|x-title"
)
RESPONSE_HEADERS = re.compile(
    r"x-request-id|openai-.*|x-ratelimit-.*|retry-after|retry-after-ms|x-should-retry|x-generation-id"
    r"|request-id|anthropic-ratelimit-.*"
)
# A header's value passes where it reads as an id, a number or a date, not as prose.
HEADER_VALUE = re.compile(r"[A-Za-z0-9_.:/+=@,;() -]{1,256}")


def request_headers(client: Mapping[str, str], dialect: Dialect) -> dict[str, str]:
    """All but the credential and what describes a body; names in small letters."""
    passed = {name: text for name, text in _meant_for_all(client).items() if REQUEST_HEADERS.fullmatch(name)}
    return {**MORE[dialect], **passed, "accept-encoding": "identity"}


def response_headers(upstream: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.lower(): text
        for name, text in upstream.items()
        if RESPONSE_HEADERS.fullmatch(name.lower()) and HEADER_VALUE.fullmatch(text)
    }


def credentials(client: Mapping[str, str]) -> dict[str, str]:
    """The client's own, as it sent them."""
    return {name: text for name, text in _meant_for_all(client).items() if name in CREDENTIALS}


def moved_key(client: Mapping[str, str], key_header: str) -> dict[str, str]:
    """The client's own key, under the name at which an upstream of another dialect looks for it."""
    given = credentials(client)
    scheme, _, key = given.get("authorization", "").partition(" ")
    key = given.get(key_header) or (key.strip() if scheme.lower() == "bearer" else "")
    return {key_header: key} if key else {}


def _meant_for_all(client: Mapping[str, str]) -> dict[str, str]:
    """What `Connection` names is meant for the hop to us alone."""
    hop = ",".join(text for name, text in client.items() if name.lower() == "connection")
    nominated = {name.strip().lower() for name in hop.split(",")}
    return {name.lower(): text for name, text in client.items() if name.lower() not in nominated}
