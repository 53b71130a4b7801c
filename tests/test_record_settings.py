"""`[records]`."""

from pathlib import Path

import pytest

from proxy.config import ConfigError, load_settings
from proxy.record_settings import RecordSettings


def test_records_are_kept_only_where_a_place_is_named() -> None:
    assert not RecordSettings().is_on
    assert RecordSettings(file=Path("r.db")).is_on
    assert load_settings(environ={"WEIR_RECORDS__FILE": "r.db"}).records.is_on


@pytest.mark.parametrize(
    ("variable", "value"), [("KEEP_DAYS", "0"), ("KEEP_DAYS", "100000"), ("MAX_BYTES", "1000"), ("MAX_BYTES", "x")]
)
def test_what_cannot_be_meant_is_refused(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"WEIR_RECORDS__{variable}"):
        load_settings(environ={f"WEIR_RECORDS__{variable}": value})
