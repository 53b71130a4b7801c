"""`weir.toml` as entries: a key, its value, and the file's line that gives it.

The tables of `[[upstream]]` go by the names that they give themselves, so that a variable can meet
one of them: `WEIR_UPSTREAM__OPENAI__API_KEY` is `api_key` of the one named "openai".
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Name = tuple[str, ...]
UPSTREAM = "upstream"  # the one section of which there may be several
LISTS = (UPSTREAM, "rules", "auth.keys")  # what may be written as a list of tables


class ConfigError(Exception):
    """The settings cannot be used. The message is one sentence a problem, a line each."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as one source gave it."""

    path: Name  # section and key; before the key an upstream's slug, a policy's name, or the number of a rule
    value: Any
    place: str  # "weir.toml line 3", "WEIR_SERVER__PORT", "--port"


def read_file(file: Path) -> list[Entry]:
    """Every key in `file`. Raises ConfigError."""
    text = _read(file)
    tables = _tables(file, text)
    several = tables.get(UPSTREAM)
    slugs = _slugs(file, text, several) if isinstance(several, list) else []
    return [Entry(_named(path, slugs), value, _place(file, text, path)) for path, value in _leaves(tables)]


def joined(sources: Iterable[Iterable[Entry]]) -> dict[Name, Entry]:
    """The later source wins, over a whole table too where it gives one as a whole."""
    entries: dict[Name, Entry] = {}
    for entry in (entry for source in sources for entry in source):
        for path in list(entries):
            shorter = min(len(path), len(entry.path))
            if path[:shorter] == entry.path[:shorter] and path != entry.path:
                del entries[path]
        entries[entry.path] = entry
    return entries


def is_one_of_several(path: Name) -> bool:
    """Is it a key of one `[[upstream]]` of the list, below its slug?"""
    return path[0] == UPSTREAM and len(path) > 2


def slug(name: str) -> str:
    """An upstream's name as a variable's name can hold it, in which two underscores divide."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _slugs(file: Path, text: str, several: list[Any]) -> list[str]:
    """The slugs of the upstreams, in their order."""
    found: list[str] = []
    for number, one in enumerate(several):
        name = one.get("name") if isinstance(one, dict) else None
        place = _place(file, text, (UPSTREAM, str(number)))
        if not isinstance(name, str) or not name:
            raise ConfigError(f'{place}: each [[upstream]] needs a name, such as name = "openai".')
        if slug(name) in found:
            raise ConfigError(f'{place}: there are two upstreams named "{name}", as variables spell it.')
        found.append(slug(name))
    return found


def _named(path: Name, slugs: list[str]) -> Name:
    return (UPSTREAM, slugs[int(path[1])], *path[2:]) if slugs and path[0] == UPSTREAM else path


def _leaves(table: Mapping[str, Any], above: Name = ()) -> Iterator[tuple[Name, Any]]:
    for key, value in table.items():
        name = ".".join((*above, key))
        if name in LISTS and isinstance(value, list) and (name == UPSTREAM or _are_tables(value)):
            value = {str(number): one for number, one in enumerate(value)}
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _are_tables(values: list[Any]) -> bool:
    return all(isinstance(value, dict) for value in values)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {(exc.strerror or 'unknown reason').lower()}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text.") from None


def _tables(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{file}: is nested too deeply.") from None
    except ValueError as exc:  # broken TOML, and plain ValueError for a number of 5,000 digits
        found = re.fullmatch(r"(.*) \(at (.*)\)", str(exc), re.DOTALL)
        reason, where = found.groups() if found else (str(exc), "")
        where = where.replace("end of document", "at its end")
        raise ConfigError(
            f"{file} {where}".rstrip() + f": is not valid TOML: {reason[:1].lower()}{reason[1:]}."
        ) from None


def _place(file: Path, text: str, path: Name) -> str:
    """The file, and the line that gives `path` where it is written plainly; tomllib does not tell."""
    wanted, table = _bare(".".join(path)), ""
    counts: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*(\[+)([^\[\]=]+)\]", line):
            given = table = _bare(header[2])
            if header[1] == "[[" and table in LISTS:
                counts[table] += 1
                given = table = f"{table}.{counts[table] - 1}"
        elif key := re.match(r"\s*([^=#]+)=", line):
            given = f"{table}.{_bare(key[1])}".lstrip(".")
            if wanted.startswith(f"{given}."):  # an inline table
                return f"{file} line {number}"
        else:
            continue
        if f"{given}.".startswith(f"{wanted}."):
            return f"{file} line {number}"
    return str(file)


def _bare(name: str) -> str:
    return re.sub(r"[\s\"']", "", name)
