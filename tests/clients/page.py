"""docs/clients.md: what each client shows, written from runs, and read back to be compared with runs."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.clients.suite import CASES, CLIENTS, NOTICE, TEXT, Client, Seen

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
APPS = Path(__file__).parent / "apps"
FORMS = {True: "streamed", False: "whole"}
COLUMNS = {name: case.column for name, case in CASES.items() if case.column}
START, END = "<!-- {}: written by `make clients ARGS=--write-docs` -->\n", "<!-- end -->\n"

Row = tuple[str, str, str]  # library, way, form
Cells = dict[str, str]  # name of a case -> what is seen


def row_of(client: Client, *, stream: bool) -> Row:
    return client.library, f"`{client.way}`", FORMS[stream]


def cell_of(seen: Seen, name: str) -> str:
    """What an app's developer sees, in a few words."""
    words = [
        _text(seen.text) if name not in ("failure", "down") else "",
        *([f"finish `{seen.finish}`"] if seen.finish else []),
    ]
    if name == "annotated" and seen.error is None:
        return f"in {seen.annotation}" if seen.annotation else "not shown"
    if seen.error is not None:
        status = f" ({seen.error['status']})" if seen.error["status"] else ""
        words.append(f"raises `{seen.error['kind']}`{status}")
    if seen.asked > 1:
        words.append(f"asks the upstream {seen.asked} times")
    return ", ".join(word for word in words if word)


def _text(text: str) -> str:
    if not text:
        return ""
    if text == NOTICE:
        return "notice"
    if text.endswith(NOTICE):
        return "text and notice"
    return "text" if TEXT.startswith(text) else "other text"


# Reading.


def written(text: str) -> dict[Row, Cells]:
    """The rows of the table of what is seen."""
    found = {}
    for line in _part(text, "seen").splitlines()[2:]:
        library, way, form, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        found[library, way, form] = dict(zip(COLUMNS, cells, strict=False))  # a case may be new
    return found


def versions(text: str) -> dict[str, str]:
    lines = [line.strip("|").split(" | ") for line in _part(text, "versions").splitlines()[2:]]
    return {library.strip(): version.strip() for library, version in lines}


def _part(text: str, name: str) -> str:
    _, _, rest = text.partition(START.format(name))
    return rest.partition(END)[0].strip()


# Writing.


def rewritten(text: str, seen: Mapping[Row, Cells], found_versions: Mapping[str, str]) -> str:
    """The page with these runs in place of its own."""
    rows = [row_of(client, stream=stream) for client in CLIENTS for stream in client.forms]
    known_cells = written(text)
    cells = {row: {**known_cells.get(row, {}), **seen.get(row, {})} for row in rows}
    table = [[*row, *(cells[row].get(name, "") for name in COLUMNS)] for row in rows]
    text = _with_part(text, "seen", _table(["client", "call", "", *COLUMNS.values()], table))
    known = versions(text) | dict(found_versions)
    libraries = dict.fromkeys(client.library for client in CLIENTS)
    text = _with_part(text, "versions", _table(["client", "version"], [[one, known.get(one, "")] for one in libraries]))
    return _with_part(text, "snippets", snippets())


def _with_part(text: str, name: str, part: str) -> str:
    before, mark, rest = text.partition(START.format(name))
    assert mark, f"the page has no place for {name}"
    return before + mark + part + END + rest.partition(END)[2]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def snippets() -> str:
    """How each client is pointed at Weir: lines of the code that the runs have run."""
    found = []
    for path in sorted(APPS.iterdir()):
        language = {".py": "python", ".mjs": "javascript"}.get(path.suffix)
        marked = re.findall(r"(?m)^ *(?:#|//) docs: ([^\n]+)\n(.*?)^ *(?:#|//) docs: end", path.read_text(), re.DOTALL)
        for name, code in marked if language else ():
            lines = code.splitlines()
            indent = min(len(line) - len(line.lstrip()) for line in lines if line)
            shown = "\n".join(line[indent:] for line in lines).strip("\n")
            found.append(f"**{name}**\n```{language}\n{shown}\n```\n")
    return "".join(found)
