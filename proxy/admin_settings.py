"""The operator's own listener: metrics, and what only an operator may do."""

import re
from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from proxy.setting_types import Count, Line, Section


class AdminSettings(Section):
    """The operator's listener, apart from the clients'."""

    host: Line = "127.0.0.1"
    """Address to listen on; one that others can reach needs a key."""
    port: Annotated[Count, Field(ge=0, le=65535)] | None = None
    """Port of the console, /metrics and health for operators, such as 9464; without it there is no such listener."""
    key: SecretStr | None = None
    """What an operator shows as a bearer token; no client's key opens this door."""

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[\x21-\x7e]{16,}", key.get_secret_value()):
            raise ValueError("must be at least 16 printable ASCII characters without spaces")
        return key
