"""What all readers share: who may store, and how a refusal names the setting."""

import pytest

from proxy.request_body import BadRequest
from proxy.request_fields import ModeratedRequest, Terms, field, refuse_routing, refuse_stored, required
from proxy.server_settings import ServerSettings

LIMITS = ServerSettings()


def test_a_refusal_that_the_operator_can_lift_names_the_setting() -> None:
    with pytest.raises(BadRequest, match=r"policy\.allow_stored = true") as caught:
        refuse_stored({"store": True}, Terms(LIMITS))
    assert caught.value.param == "store"
    refuse_stored({"store": True}, Terms(LIMITS, allow_stored=True))
    refuse_stored({"store": False}, Terms(LIMITS))


def test_fields_have_their_exact_type() -> None:
    assert field({"a": 1}, "a", int) == 1
    assert field({"a": None}, "a", int) is None
    for table in ({"a": True}, {"a": 1.0}, {"a": "1"}):
        with pytest.raises(BadRequest):
            field(table, "a", int)
    with pytest.raises(BadRequest) as caught:
        required({}, "a", str, "b.")
    assert caught.value.param == "b.a"


def test_no_request_chooses_its_upstream() -> None:
    refuse_routing({"model": "m", "tools": []})
    with pytest.raises(BadRequest):
        refuse_routing({"Base-URL": "x"})


def test_a_request_has_a_conversation_or_more() -> None:
    one, two = [{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]
    assert ModeratedRequest("m", one, {}).conversations == [one]
    assert ModeratedRequest("m", one, {}, more=(two,)).conversations == [one, two]
