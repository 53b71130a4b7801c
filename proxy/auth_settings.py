"""Who may ask: the keys of `weir.toml`, each with its limits."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from proxy.setting_types import Count, Section, ShortName, spelled

DIGESTS = 'must be the 64 hexadecimal digits of the key\'s SHA-256, as "weir key new NAME" prints them'
LISTS = "must be tables [[auth.keys]], or text of the form NAME:SHA256, NAME:SHA256"


class KeySettings(Section):
    """One key that clients may use. The key itself is known to its owner alone."""

    name: ShortName
    """Stands for the key in records, metrics and limits."""
    sha256: Annotated[str, spelled(r"[0-9a-f]{64}", DIGESTS)]
    """SHA-256 of the key, in hexadecimal."""
    max_streams: Annotated[Count, Field(ge=1, le=1_000_000)] | None = None
    """Most requests of this key at once; more are answered with 429."""
    requests_per_minute: Annotated[Count, Field(ge=1, le=10_000_000)] | None = None
    """Most requests of this key a minute; more are answered with 429."""
    tokens_per_minute: Annotated[Count, Field(ge=1, le=1_000_000_000)] | None = None
    """Tokens of prompts and answers a minute, by the guard's count; above them new requests are answered with 429."""


def _tables(value: object) -> object:
    """A variable holds `NAME:SHA256, NAME:SHA256`, since it cannot hold tables."""
    if not isinstance(value, str):
        return value
    pairs = [entry.partition(":") for entry in re.split(r"[\s,]+", value.strip()) if entry]
    if not pairs or not all(separator for _, separator, _ in pairs):
        raise ValueError(LISTS)
    return [{"name": name, "sha256": digest} for name, _, digest in pairs]


class AuthSettings(Section):
    """Who may ask."""

    keys: Annotated[tuple[KeySettings, ...], BeforeValidator(_tables), Field(max_length=1000)] = ()
    """The keys that clients may use, a table each; without any, whoever reaches the port may ask."""
    open: bool = False
    """Let a server without keys listen where others can reach it."""

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: tuple[KeySettings, ...]) -> tuple[KeySettings, ...]:
        for what, found in (("name", [key.name for key in keys]), ("sha256", [key.sha256 for key in keys])):
            first: dict[str, int] = {}
            for number, value in enumerate(found, 1):
                if first.setdefault(value, number) != number:
                    raise ValueError(f"number {first[value]} and number {number} have the same {what}")
        return keys
