"""Errors are told in the API's shape, in our words."""

from adapters.base import Failure
from proxy.errors import GUARD_FAILED, TOO_LONG, UPSTREAM_ENDED, ApiError, Fault, place_of, status_of


def test_an_error_has_the_shape_of_the_api() -> None:
    error = ApiError(400, "No.", param="n", code="bad", extra={"innererror": {"code": "x"}})
    expected = {"message": "No.", "type": "invalid_request_error", "param": "n", "code": "bad"}
    assert error.body() == {"error": {**expected, "innererror": {"code": "x"}}}


def test_a_fault_says_its_failure_and_keeps_its_detail_for_the_record() -> None:
    fault = Fault(Failure("Gone.", code="gone"), 502, "a detail")
    assert str(fault) == "a detail"
    assert fault.api_error().body()["error"]["message"] == "Gone."
    assert fault.api_error().headers == {}
    assert Fault(GUARD_FAILED, 503).api_error().headers == {"retry-after": "1"}
    assert str(Fault(GUARD_FAILED, 503)) == GUARD_FAILED.message


def test_a_failure_has_a_status_where_nothing_was_sent() -> None:
    assert [status_of(one) for one in (TOO_LONG, GUARD_FAILED, UPSTREAM_ENDED)] == [504, 503, 502]


def test_the_place_of_an_error_is_told_without_its_message() -> None:
    try:
        raise ValueError("secret")
    except ValueError as exc:
        where = place_of(exc)
    assert where.startswith("ValueError at test_errors.py:")
    assert "secret" not in where
    assert place_of(KeyError("secret")) == "KeyError"
