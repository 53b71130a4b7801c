"""An error tells which limit was met, if that is why."""

import pytest

from adapters.errors import AdapterError, UpstreamReportedError


def test_an_error_names_the_limit_that_was_met() -> None:
    assert AdapterError("an event exceeds 4 bytes", limit="event").limit == "event"
    assert not AdapterError("not JSON").limit


def test_what_the_upstream_reports_cannot_be_read_either() -> None:
    with pytest.raises(AdapterError, match="it failed"):
        raise UpstreamReportedError("it failed")
