"""docs/reliability.md names every row of the catalogue once, and only tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.split(" | ")] for line in PAGE.splitlines() if re.match(r"\| [A-M]\d+ ", line)]
SIZES = {
    "A": 16,
    "B": 18,
    "C": 9,
    "D": 14,
    "E": 14,
    "F": 13,
    "G": 16,
    "H": 19,
    "I": 17,
    "J": 13,
    "K": 7,
    "L": 6,
    "M": 5,
}
STARRED = """
    A1 A8 B1 B2 B3 B4 B5 B12 B18 C1 C4 D1 D3 D12 E1 E7 F1 G1 G2 G3 G7 G8 G12 H1 H2 H4 H5 H6 H8 H19 I2 I5 I9
    J1 J2 J4 J8 J13 K1 L1
"""


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name for node in functions if node.name.startswith("test_")}


FILES = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")]
# Without those of the packages that the clients' own environments hold.
OURS = [path for path in FILES if not any(part.startswith(".") for part in path.parts)]
TESTS: set[str] = set().union(*(names_in(ROOT / path) for path in OURS))


def test_every_row_is_there_once_and_in_order() -> None:
    ids = [row[0].removeprefix("| ").removesuffix(" ★") for row in ROWS]
    assert ids == [f"{section}{number}" for section, size in SIZES.items() for number in range(1, size + 1)]
    assert len(ids) == 167
    assert [name for name, row in zip(ids, ROWS, strict=True) if row[0].endswith("★")] == STARRED.split()


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", "\n".join(row[-1] for row in ROWS)))
    assert named - TESTS == set()


def test_a_row_that_is_met_names_a_test_and_one_that_has_none_says_what_it_is() -> None:
    for row in ROWS:
        name, state, shown = row[0], row[3], row[4]
        assert state in ("met", "partly", "limit", "not met"), name
        assert state == "limit" or ("test_" in shown) == (state in ("met", "partly")), name


def test_a_starred_row_that_is_built_has_a_test_of_its_name() -> None:
    for row in ROWS:
        if row[0].endswith("★") and row[3] in ("met", "partly"):
            assert f"`test_{row[0].removeprefix('| ').removesuffix(' ★').lower()}_" in row[4], row[0]


def test_every_test_of_a_rows_name_is_named() -> None:
    own = {name for name in TESTS if re.match(r"test_[a-m]\d+_", name)}
    assert own - set(re.findall(r"`(test_[a-z0-9_]+)`", PAGE)) == set()


def test_every_public_bug_has_its_reference_and_the_page_counts_them() -> None:
    paths = sorted((ROOT / "tests" / "reliability").glob("test_public_bugs_*.py"))
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    functions = [
        node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    tests = [node for node in functions if node.name.startswith("test_")]
    for node in tests:
        assert re.search(r"#\d+|CVE-|PYSEC-|GHSA-|\.(py|rs|ai)\b|PyPI", ast.get_docstring(node) or ""), node.name
    assert f"{len(tests)} bugs of others" in PAGE
