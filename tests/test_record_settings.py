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


def test_a_server_is_named_by_a_url_that_is_never_shown() -> None:
    url = "postgresql://weir:hunter2@a:5432,b:5432/records?sslmode=verify-full&sslrootcert=/ca.pem"
    settings = load_settings(environ={"WEIR_RECORDS__URL": url}).records
    assert settings.is_on
    assert settings.url is not None
    assert settings.url.get_secret_value() == url
    assert "hunter2" not in repr(settings)
    assert settings.passwords() == ["hunter2"]


@pytest.mark.parametrize("url", ["mysql://hunter2@h/db", "hunter2", "postgresql://h/hunter2 x", "POSTGRESQL://hunter2"])
def test_another_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="begins with postgresql://") as caught:
        load_settings(environ={"WEIR_RECORDS__URL": url})
    assert "hunter2" not in str(caught.value)


def test_records_are_kept_in_one_place() -> None:
    with pytest.raises(ConfigError, match="one place"):
        load_settings(environ={"WEIR_RECORDS__URL": "postgresql://h/db", "WEIR_RECORDS__FILE": "r.db"})
