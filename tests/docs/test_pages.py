"""What the pages show and point to: settings that can be loaded, links that lead somewhere, pictures that are there."""

import re
from pathlib import Path

import pytest

from proxy.config import load_settings
from tests.docs.test_commands import PAGES, ROOT, Block, blocks

SETTINGS = [
    (page, one)
    for page in [*PAGES, ROOT / "CHANGELOG.md"]
    for one in blocks(page.read_text())
    if one.language == "toml" and "[project]" not in one.text
]


@pytest.mark.parametrize(("page", "block"), SETTINGS, ids=lambda one: getattr(one, "name", getattr(one, "line", None)))
def test_settings_of_a_page_can_be_loaded(page: Path, block: Block, tmp_path: Path) -> None:
    file = tmp_path / "weir.toml"
    file.write_text(block.text.replace("<64 digits>", "0" * 64))
    load_settings(file, {}, {})


@pytest.mark.parametrize("page", [*PAGES, ROOT / "training" / "README.md"], ids=lambda page: page.name)
def test_a_page_that_names_the_embedded_guard_says_that_it_is_demo_grade(page: Path) -> None:
    text = page.read_text().lower()
    assert "demo grade" in text or "embedded guard" not in text


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if not link.startswith("http")]
    for link in links:
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_is_reached_from_the_readme() -> None:
    seen, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        for link in re.findall(r"\]\(([^)\s#]+\.md)", page.read_text()):
            found = (page.parent / link).resolve()
            if not link.startswith("http") and found not in seen and ROOT / "docs" in found.parents:
                todo.append(found)
    assert {page for page in PAGES if page not in seen} == set()
