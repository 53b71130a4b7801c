"""Read the settings once, and refuse what cannot be meant with a sentence: where, which key, why.

Three sources, the later over the earlier: `weir.toml` (or `--config FILE`), environment variables
(`WEIR_SERVER__PORT`), and flags. Each setting remembers where it came from, so that a refusal can
name the file's line, the variable or the flag.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.risk import Category
from proxy.settings import (
    CATEGORY_OF_SLUG,
    AnnotationSettings,
    GuardSettings,
    LogSettings,
    PolicySettings,
    ServerSettings,
    Settings,
    UpstreamSettings,
    category_slug,
)

__all__ = [
    "FLAGS",
    "AnnotationSettings",
    "ConfigError",
    "GuardSettings",
    "LogSettings",
    "PolicySettings",
    "ServerSettings",
    "Settings",
    "UpstreamSettings",
    "load_settings",
    "require_upstream",
]

DEFAULT_FILE = Path("weir.toml")
PREFIX = "WEIR_"

# The keys that have a flag. `cli` makes its options from this, and refusals name them.
FLAGS: dict[str, str] = {
    "server.host": "--host",
    "server.port": "--port",
    "upstream.base_url": "--upstream",
    "upstream.api_key": "--upstream-key",
    "guard.model": "--guard",
    "guard.revision": "--guard-revision",
    "guard.device": "--device",
    "guard.dtype": "--dtype",
    "guard.threads": "--threads",
    "guard.address": "--guard-address",
    "guard.on_failure": "--on-failure",
    "policy.mode": "--mode",
    "policy.on_flag": "--on-flag",
    "policy.debounce": "--debounce",
    "policy.release": "--release",
    "policy.window": "--window",
    "policy.prompt_check": "--prompt-check",
    "policy.prompt_block": "--prompt-block",
    "log.level": "--log-level",
    "log.file": "--log-file",
}

# Their values are never repeated in a message.
SECRETS = frozenset({("upstream", "api_key"), ("upstream", "base_url"), ("guard", "token")})

Name = tuple[str, ...]
SECTIONS = {name: field.annotation for name, field in Settings.model_fields.items()}
CATEGORIES = ("policy", "categories")  # the one key that is a table
NAMES: list[Name] = [
    *((section, key) for section, model in SECTIONS.items() if model for key in model.model_fields),
    *((*CATEGORIES, str(category)) for category in Category),
]

# pydantic's error types in words for people; what is not here keeps pydantic's own words.
REASONS = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "dict_type": "must be a table",
    "path_type": "must be a file's path",
}


class ConfigError(Exception):
    """The settings cannot be used. The message is one sentence a problem, a line each."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as one source gave it."""

    path: Name  # section and key, and a category's name under `categories`
    value: Any
    place: str  # "weir.toml line 3", "WEIR_SERVER__PORT", "--port"


def load_settings(
    config: Path | None = None, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Settings from the file, the environment and `overrides`, which go by "section.key".

    Raises ConfigError.
    """
    sources = [list(_from_file(config)), list(_from_environment(environ)), list(_from_overrides(overrides or {}))]
    if problems := [problem for source in sources for problem in _faults(source)]:
        raise ConfigError("\n".join(problems))
    entries = {entry.path: entry for source in sources for entry in source}  # the later source wins
    places = {path: entry.place for path, entry in entries.items()}
    try:
        return Settings.model_validate(_tree(entries.values()))
    except ValidationError as exc:
        raise ConfigError("\n".join(_sentence(error, places) for error in exc.errors())) from None


def require_upstream(settings: Settings) -> str:
    """The upstream's base URL. Raises ConfigError where there is none."""
    if settings.upstream.base_url is None:
        raise ConfigError(
            "weir serve needs an upstream: pass --upstream URL, or set [upstream] base_url in weir.toml or "
            "WEIR_UPSTREAM__BASE_URL. For OpenAI it is https://api.openai.com/v1; the clients' own API keys are "
            "forwarded, unless WEIR_UPSTREAM__API_KEY holds one to use for all. `weir demo` needs neither."
        )
    return settings.upstream.base_url


def _from_file(config: Path | None) -> Iterator[Entry]:
    file = config or DEFAULT_FILE
    if config is None and not file.exists():
        return
    text = _read(file)
    for path, value in _leaves(_tables(file, text)):
        yield Entry(_canonical(path), value, _place(file, text, path))


def _leaves(table: Mapping[str, Any], above: Name = ()) -> Iterator[tuple[Name, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


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
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+([^\[\]=]+)\]", line):
            given = table = _bare(header[1])
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


def _from_environment(environ: Mapping[str, str]) -> Iterator[Entry]:
    for name, value in sorted(environ.items()):
        # An empty variable is how shells and compose files unset one.
        if name.startswith(PREFIX) and value:
            yield Entry(_canonical(name.removeprefix(PREFIX).lower().split("__")), value, name)


def _from_overrides(overrides: Mapping[str, Any]) -> Iterator[Entry]:
    for key, value in overrides.items():
        yield Entry(_canonical(key.split(".")), value, FLAGS.get(key, key))


def _canonical(path: Sequence[str]) -> Name:
    """Categories by their own names, so that a variable meets the file's spelling."""
    if tuple(path[:2]) == CATEGORIES and len(path) == 3:
        return (*CATEGORIES, str(CATEGORY_OF_SLUG.get(category_slug(path[2]), path[2])))
    return tuple(path)


def _faults(source: Iterable[Entry]) -> Iterator[str]:
    """What is wrong with one source before any value is looked at."""
    first: dict[Name, str] = {}
    for entry in source:
        if entry.path not in NAMES and entry.path != CATEGORIES:
            yield _unknown(entry)
        elif entry.path in first:
            yield f"{entry.place}: {_written(entry.path)} is given a second time, after {first[entry.path]}."
        first.setdefault(entry.path, entry.place)


def _unknown(entry: Entry) -> str:
    if len(entry.path) == 1 and entry.path[0] in SECTIONS:
        return f"{entry.place}: [{entry.path[0]}] is a section: its keys go below it, a line each."
    spell = _variable if entry.place.startswith(PREFIX) else _written
    # The right key in a wrong section is found by its name alone, anything else by its looks.
    same_key = [spell(name) for name in NAMES if name[-1] == entry.path[-1]]
    names, cutoff = (same_key, 0.0) if same_key else ([spell(name) for name in NAMES], 0.6)
    close = difflib.get_close_matches(spell(entry.path), names, n=1, cutoff=cutoff)
    hint = f"; did you mean {close[0]}?" if close else "."
    return f"{entry.place}: there is no setting {spell(entry.path)}{hint}"


def _written(name: Name) -> str:
    """As `weir.toml` has it: `[section] key`."""
    return f"[{name[0]}] {'.'.join(name[1:])}" if len(name) > 1 else name[0]


def _variable(name: Name) -> str:
    return PREFIX + re.sub(r"[^A-Za-z0-9_]", "_", "__".join(name)).upper()


def _tree(entries: Iterable[Entry]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for entry in sorted(entries, key=lambda entry: len(entry.path)):
        table = tree
        for key in entry.path[:-1]:
            table = table.setdefault(key, {})
        table[entry.path[-1]] = entry.value
    return tree


def _sentence(error: ErrorDetails, places: Mapping[Name, str]) -> str:
    name = tuple(str(part) for part in error["loc"])
    reason = _reason(error)
    if len(name) == 1:  # of a section as a whole: it is the key that the reason names
        name = next(path for path in reversed(list(places)) if path[0] == name[0] and path[1] in reason)
        return f"{places[name]}: {reason}."
    return f"{places[name]}: {_written(name)} {reason}{_but(name, error)}"


def _reason(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    words = re.sub(r"^\w+ should (be|have)\b", r"must \1", error["msg"])
    return REASONS.get(error["type"], words.replace("'", '"'))


def _but(name: Name, error: ErrorDetails) -> str:
    """What was found instead, unless it is secret or long, and what was perhaps meant."""
    given = error["input"]
    if error["type"] == "value_error" or name in SECRETS:
        return "."
    if not isinstance(given, str | int | float) or len(str(given)) > 80:
        return "."
    choices = re.findall(r"'([^']+)'", str(error.get("ctx", {}).get("expected", "")))
    close = difflib.get_close_matches(str(given).lower(), choices, n=1)
    hint = f"; did you mean {json.dumps(close[0])}?" if close else "."
    return f", not {json.dumps(given)}{hint}"
