"""Only what names a model passes."""

import pytest

from proxy.model_list import read_models


def test_known_fields_pass_and_others_do_not() -> None:
    body = b'{"data":[{"id":"a","object":"model","created":1,"owned_by":"me","secret":"x"},{"id":7},"x"],"more":1}'
    listed = {"object": "list", "data": [{"id": "a", "object": "model", "created": 1, "owned_by": "me"}]}
    assert read_models(body) == listed


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"data":{}}', b"[" * 100_000, b"\xff"])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_models(body)
