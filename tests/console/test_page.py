"""The files of the page: all are served, nothing in them is inline or from elsewhere, and text stays text."""

import re
from importlib.resources import files

import pytest

from proxy.console.page import FILES, POLICY, body_of

SCRIPTS = [path for path in FILES if path.endswith(".js")]
# The names of namespaces look like addresses; nobody asks for them.
NAMESPACES = ("http://www.w3.org/2000/svg",)


def text_of(path: str) -> str:
    return body_of(path).decode("utf-8")


def test_all_files_of_the_folder_are_served_and_no_others() -> None:
    there = {one.name for one in files("proxy.console").joinpath("page").iterdir()}
    assert there == {name for name, _ in FILES.values()}


def test_scripts_import_only_what_is_served() -> None:
    for path in SCRIPTS:
        for name in re.findall(r'from "([^"]*)"', text_of(path)):
            assert f"/{name.removeprefix('./')}" in FILES


@pytest.mark.parametrize("path", FILES)
def test_nothing_comes_from_elsewhere(path: str) -> None:
    text = text_of(path)
    for name in NAMESPACES:
        text = text.replace(name, "")
    assert not re.findall(r"(https?:)?//[a-z0-9]+\.[a-z]+|url\(|@import|import\(", text)


def test_nothing_in_the_page_is_inline() -> None:
    page = text_of("/")
    assert re.findall(r"<script([^>]*)>(.*?)</script>", page, re.S) == [(' type="module" src="/console.js"', "")]
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)


@pytest.mark.parametrize("path", SCRIPTS)
def test_what_comes_in_is_put_in_as_text(path: str) -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML"
    assert not re.findall(rf"{ways}|\beval\(|\bFunction\(", text_of(path))


def test_the_policy_lets_in_nothing_but_our_own() -> None:
    allowed = {name: rest.split() for name, _, rest in (part.partition(" ") for part in POLICY.split("; "))}
    assert allowed["default-src"] == ["'none'"]
    assert {source for sources in allowed.values() for source in sources} == {"'none'", "'self'", "data:"}
    assert not {"'unsafe-inline'", "'unsafe-eval'"} & {source for sources in allowed.values() for source in sources}
