"""The table of what may pass unjudged."""

import re
from pathlib import Path
from typing import get_args

import pytest

from proxy.passthrough import FAMILIES, KEY_HEADERS, ROUTES, refusal
from proxy.settings import Family
from tests.doors import DOORS


def test_every_family_can_be_allowed_and_no_other() -> None:
    assert set(FAMILIES) == set(get_args(Family))
    assert KEY_HEADERS.keys() <= FAMILIES.keys()


def test_a_route_is_one_method_of_one_path_of_one_family() -> None:
    pairs = [(route.method, route.path) for route in ROUTES]
    assert len(pairs) == len(set(pairs)) == 49
    assert {route.method for route in ROUTES} == {"GET", "POST", "DELETE"}
    assert all(route.path.startswith("/v1/") for route in ROUTES)
    assert not {("POST", door.path) for door in DOORS.values()} & set(pairs)


@pytest.mark.parametrize(
    ("method", "path", "family"),
    [
        ("POST", "/v1/embeddings", "embeddings"),
        ("GET", "/v1/files/file-a_B1/content", "files"),
        ("DELETE", "/v1/vector_stores/vs_1/files/file-1", "vector-stores"),
        ("GET", "/v1/chat/completions", "stored-completions"),
        ("POST", "/v1/messages/count_tokens", "count-tokens"),
        ("GET", "/v1/embeddings", None),
        ("POST", "/v1/chat/completions", None),
        ("GET", "/v1/files/..", None),
        ("GET", "/v1/files/a/b", None),
        ("GET", "/v1/files/a%2fb", None),
        ("GET", "/v1/files//content", None),
        ("GET", "/v1/files/" + "a" * 129, None),
        ("GET", "/v1/files/a\n", None),
        ("POST", "/V1/embeddings", None),
    ],
)
def test_a_refusal_names_the_family_that_would_allow_it(method: str, path: str, family: str | None) -> None:
    said = refusal(method, path)
    assert said is None if family is None else said is not None and f'allow = ["{family}"]' in said


def test_a_pattern_is_the_routers_and_a_path_the_upstreams() -> None:
    [route] = [route for route in ROUTES if route.path.endswith("/files/{1}/content")]
    assert route.pattern == ("/v1/vector_stores/{id0:[A-Za-z0-9_-]{1,128}}/files/{id1:[A-Za-z0-9_-]{1,128}}/content")
    assert route.path.format("vs_1", "file-2") == "/v1/vector_stores/vs_1/files/file-2/content"


def test_the_page_names_every_family() -> None:
    page = (Path(__file__).parent.parent / "docs" / "upstreams.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE) == list(FAMILIES)
