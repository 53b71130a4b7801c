"""Only what names a model passes."""

from typing import Any

import pytest

from proxy.model_list import read_models
from proxy.settings import Dialect


def test_known_fields_pass_and_others_do_not() -> None:
    body = b'{"data":[{"id":"a","object":"model","created":1,"owned_by":"me","secret":"x"},{"id":7},"x"],"more":1}'
    listed = {"object": "list", "data": [{"id": "a", "object": "model", "created": 1, "owned_by": "me"}]}
    assert read_models(body) == listed


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"data":{}}', b"[" * 100_000, b"\xff"])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_models(body)


LISTS: dict[Dialect, tuple[bytes, dict[str, Any]]] = {
    "anthropic": (
        b'{"data":[{"type":"model","id":"claude-x","display_name":"CANARY","created_at":"1970-01-01T00:01:00Z"},'
        b'{"id":7},{"display_name":"CANARY"},"x"],"has_more":false}',
        {"id": "claude-x", "object": "model", "created": 60, "owned_by": "anthropic"},
    ),
    "gemini": (
        b'{"models":[{"name":"models/g-1","displayName":"CANARY","supportedGenerationMethods":["generateContent"]},'
        b'{"name":"models/e","supportedGenerationMethods":["embedContent"]},{"name":"models/CANARY"},'
        b'{"name":"a CANARY text","supportedGenerationMethods":["generateContent"]}]}',
        {"id": "g-1", "object": "model", "created": 0, "owned_by": "google"},
    ),
}


@pytest.mark.parametrize("dialect", list(LISTS))
def test_lists_of_other_dialects_are_told_in_openais_words(dialect: Dialect) -> None:
    body, entry = LISTS[dialect]
    assert read_models(body, dialect) == {"object": "list", "data": [entry]}


@pytest.mark.parametrize("moment", ['"CANARY"', "5", "null", '"9999999-01-01"'])
def test_a_moment_that_is_none_is_the_first_of_all(moment: str) -> None:
    body = b'{"data":[{"id":"c","created_at":%s}]}' % moment.encode()
    assert read_models(body, "anthropic")["data"][0]["created"] == 0


@pytest.mark.parametrize("dialect", list(LISTS))
def test_the_list_of_another_dialect_is_none(dialect: Dialect) -> None:
    with pytest.raises(ValueError, match="no list"):
        read_models(b'{"list":[]}', dialect)
