"""`[records]`: whether and where one record a request is kept to be searched."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from proxy.setting_types import MIB, Count, Section


class RecordSettings(Section):
    """Keeps one record a request for `weir records`; off unless `file` is set."""

    file: Path | None = None
    """SQLite database of the records, made if it is not there."""
    keep_days: Annotated[Count, Field(ge=1, le=36_500)] = 30
    """Records older than this are deleted."""
    max_bytes: Annotated[Count, Field(ge=MIB, le=1 << 50)] = 1024 * MIB
    """Most space that the records take; beyond it the oldest are deleted."""

    content: bool = False
    """Keep what was said, too: prompts and answers, without keys; a policy's record_content goes before it."""

    @property
    def is_on(self) -> bool:
        return self.file is not None
