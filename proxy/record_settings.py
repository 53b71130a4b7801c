"""`[records]`: whether and where one record a request is kept to be searched."""

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from proxy.setting_types import MIB, Count, Section


class RecordSettings(Section):
    """Keeps one record a request for `weir records`; off unless `file` or `url` is set."""

    file: Path | None = None
    """SQLite database of the records, made if it is not there."""
    url: SecretStr | None = None
    """PostgreSQL in place of a file, for several instances: postgresql://USER@HOST/NAME; needs weir-proxy[postgres]."""
    keep_days: Annotated[Count, Field(ge=1, le=36_500)] = 30
    """Records older than this are deleted."""
    max_bytes: Annotated[Count, Field(ge=MIB, le=1 << 50)] = 1024 * MIB
    """Most space that the records take; beyond it the oldest are deleted."""

    content: bool = False
    """Keep what was said, too: prompts and answers, without keys; a policy's record_content goes before it."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr | None) -> SecretStr | None:
        # What is in it libpq judges: several hosts, TLS, a service or a file of passwords.
        if url is not None and not re.fullmatch(r"postgres(ql)?://[\x21-\x7e]*", url.get_secret_value()):
            raise ValueError("must be a URL that begins with postgresql://, of printable ASCII without spaces")
        return url

    @model_validator(mode="after")
    def _check_one_place(self) -> "RecordSettings":
        if self.file is not None and self.url is not None:
            raise ValueError("url is set, and so is file: records are kept in one place")
        return self

    def passwords(self) -> list[str]:
        """What the URL holds of them, as they are."""
        parts = urlsplit("" if self.url is None else self.url.get_secret_value())
        named = [text for name, text in parse_qsl(parts.query) if "password" in name]
        return [unquote(parts.password), *named] if parts.password else named

    @property
    def is_on(self) -> bool:
        return self.file is not None or self.url is not None
