"""The operator's key."""

import pytest
from pydantic import SecretStr, ValidationError

from proxy.admin_settings import AdminSettings


def test_there_is_no_such_listener_unless_it_is_wanted() -> None:
    assert (AdminSettings().port, AdminSettings().host, AdminSettings().key) == (None, "127.0.0.1", None)


@pytest.mark.parametrize("key", ["", "short-canary", "canary with spaces in it", "canary\r\nx: y0123456789"])
def test_a_key_that_is_weak_or_no_header_is_refused_unsaid(key: str) -> None:
    with pytest.raises(ValidationError, match="at least 16 printable") as caught:
        AdminSettings(key=SecretStr(key))
    assert "canary" not in str(caught.value)
