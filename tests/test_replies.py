"""Headers and errors of a reply. What each ending looks like over sockets: e2e/test_doors.py, test_handlers.py."""

import json

import pytest

from proxy.errors import GUARD_FAILED, UPSTREAM_ENDED, UPSTREAM_SLOW, ApiError
from proxy.records import Record, Scanned
from proxy.replies import check, error_response, weir_headers
from tests.driver import DONE, drive, stream_of


def test_an_error_carries_its_status_headers_and_body() -> None:
    response = error_response(ApiError(429, "No.", headers={"retry-after": "3"}), {"x-weir-policy": "p"})
    assert (response.status, response.headers["retry-after"], response.headers["x-weir-policy"]) == (429, "3", "p")
    assert isinstance(response.body, bytes)
    assert json.loads(response.body)["error"]["message"] == "No."


def test_our_headers_say_what_was_judged() -> None:
    record = Record("weir-1", "/v1/completions", "house", "g@1", scanned=Scanned.PARTIAL)
    assert weir_headers(record)["x-weir-scanned"] == "partial"
    assert weir_headers(record, Scanned.FULL)["x-weir-scanned"] == "full"


def test_a_failed_answer_has_the_status_of_its_failure() -> None:
    stream, _ = stream_of()
    drive(stream, [])
    for failure, status, retry in (
        (UPSTREAM_ENDED, 502, None),
        (UPSTREAM_SLOW, 504, None),
        (GUARD_FAILED, 503, "false"),
    ):
        stream, _ = stream_of()
        stream.fail(failure)
        stream.data_to_send()
        with pytest.raises(ApiError) as caught:
            check(stream)
        assert caught.value.status == status
        assert caught.value.headers.get("x-should-retry") == retry
    stream, _ = stream_of()
    stream.receive_data(DONE)
    stream.data_to_send()
    check(stream)
