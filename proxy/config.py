"""Read the settings once, and refuse what cannot be meant with a sentence: where, which key, why.

Three sources, the later over the earlier: `weir.toml` (or `--config FILE`, see `config_file`), environment
variables (`WEIR_SERVER__PORT`), and flags. Each setting remembers where it came from, so that a refusal can
name the file's line, the variable or the flag.
"""

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.config_file import UPSTREAM, ConfigError, Entry, Name, is_one_of_several, joined, read_file
from proxy.policy_settings import (
    CATEGORY_OF_SLUG,
    JudgingSettings,
    PolicySettings,
    RuleSettings,
    category_slug,
    level_name,
)
from proxy.server_settings import ServerSettings
from proxy.setting_names import (
    CATEGORIES,
    LEVELS,
    NAMES,
    SECTIONS,
    SEVERAL,
    as_lists,
    inherited,
    is_known,
    kind_of,
    siblings,
    written,
)
from proxy.settings import (
    AnnotationSettings,
    GuardSettings,
    LogSettings,
    Settings,
    UpstreamSettings,
    cross_faults,
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
    "server.workers": "--workers",
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
    "records.file": "--records-file",
}

# Their values are never repeated in a message.
SECRETS = frozenset({("upstream", "api_key"), ("upstream", "base_url"), ("guard", "token"), ("admin", "key")})
SECTION_KINDS = {*SECTIONS.values(), JudgingSettings, RuleSettings}

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
    "model_type": "must be a table",
    "missing": "must be given",
    "tuple_type": "must be a list",
    "path_type": "must be a file's path",
}


def load_settings(
    config: Path | None = None, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Settings from the file, the environment and `overrides`, which go by "section.key".

    Raises ConfigError.
    """
    sources = [list(_from_file(config)), list(_from_environment(environ)), list(_from_overrides(overrides or {}))]
    names = _names(sources[0])
    problems = [problem for source in sources for problem in _faults(source, names)]
    if problems := problems or list(_upstream_faults(sources)):
        raise ConfigError("\n".join(problems))
    entries = joined(sources)
    places = {path: entry.place for path, entry in entries.items()}
    try:
        settings = Settings.model_validate(inherited(as_lists(_tree(entries.values()))))
    except ValidationError as exc:
        found = [_sentence(error, places) for error in exc.errors()]
        raise ConfigError("\n".join(sentence for sentence in found if sentence)) from None
    if faults := [f"{_place_of(name, places)}: {written(name)} {reason}." for name, reason in cross_faults(settings)]:
        raise ConfigError("\n".join(faults))
    return settings


def require_upstream(settings: Settings) -> None:
    """Raises ConfigError where there is no upstream."""
    if any(upstream.base_url is None for upstream in settings.upstreams):
        raise ConfigError(
            "weir serve needs an upstream: pass --upstream URL, or set [upstream] base_url in weir.toml or "
            "WEIR_UPSTREAM__BASE_URL. For OpenAI it is https://api.openai.com/v1; the clients' own API keys are "
            "forwarded, unless WEIR_UPSTREAM__API_KEY holds one to use for all. `weir demo` needs neither."
        )


def _from_file(config: Path | None) -> Iterator[Entry]:
    file = config or DEFAULT_FILE
    if config is None and not file.exists():
        return
    for entry in read_file(file):
        yield replace(entry, path=_canonical(entry.path))


def _from_environment(environ: Mapping[str, str]) -> Iterator[Entry]:
    for name, value in sorted(environ.items()):
        # An empty variable is how shells and compose files unset one.
        if name.startswith(PREFIX) and value:
            yield Entry(_canonical(name.removeprefix(PREFIX).lower().split("__")), value, name)


def _from_overrides(overrides: Mapping[str, Any]) -> Iterator[Entry]:
    for key, value in overrides.items():
        yield Entry(_canonical(key.split(".")), value, FLAGS.get(key, key))


CANONICAL: dict[str, Callable[[str], str]] = {
    CATEGORIES: lambda name: str(CATEGORY_OF_SLUG.get(category_slug(name), name)),
    LEVELS: level_name,
}


def _canonical(path: Sequence[str]) -> Name:
    """Categories and levels by their own names, so that a variable meets the file's spelling."""
    return tuple(
        CANONICAL[above](name) if above in CANONICAL else name for above, name in zip(["", *path], path, strict=False)
    )


def _names(file: Iterable[Entry]) -> list[Name]:
    """All that can be set. Where the file lists several upstreams, their keys take the place of the one's."""
    slugs = _slugs(file)
    alone = [name for name in NAMES if name[0] != UPSTREAM or not slugs]
    return [*alone, *((UPSTREAM, one, key) for one in slugs for key in SECTIONS[UPSTREAM].model_fields)]


def _slugs(file: Iterable[Entry]) -> list[str]:
    return [entry.path[1] for entry in file if is_one_of_several(entry.path) and entry.path[2] == "name"]


def _faults(source: Iterable[Entry], names: Sequence[Name]) -> Iterator[str]:
    """What is wrong with one source before any value is looked at."""
    first: dict[Name, str] = {}
    for entry in source:
        is_empty_section = len(entry.path) == 1 and entry.path[0] in SECTIONS and entry.value == {}
        if not is_empty_section and not _is_setting(entry.path, names):
            yield _unknown(entry, names)
        elif entry.path in first:
            yield f"{entry.place}: {written(entry.path)} is given a second time, after {first[entry.path]}."
        first.setdefault(entry.path, entry.place)


def _is_setting(path: Name, names: Sequence[Name]) -> bool:
    return path in names if path[0] == UPSTREAM else is_known(path)


def _upstream_faults(sources: Sequence[Iterable[Entry]]) -> Iterator[str]:
    """Of several upstreams each has an address, and one at the most is for whatever the others do not take."""
    given = {entry.path: entry for source in sources for entry in source}
    default = None
    for one in _slugs(sources[0]):
        named = given[UPSTREAM, one, "name"]
        if (UPSTREAM, one, "base_url") not in given:
            yield f'{named.place}: the upstream "{named.value}" has no base_url.'
        if (UPSTREAM, one, "models") in given:
            continue
        if default is not None:
            yield (
                f'{named.place}: neither "{default}" nor "{named.value}" has models, and only one upstream can be '
                "the one for all other models."
            )
        default = named.value


def _unknown(entry: Entry, known: Sequence[Name]) -> str:
    if len(entry.path) == 1 and entry.path[0] in SECTIONS:
        return f"{entry.place}: [{entry.path[0]}] is a section: its keys go below it, a line each."
    spell = _variable if entry.place.startswith(PREFIX) else written
    known = siblings(entry.path) or known
    # The right key in a wrong section is found by its name alone, anything else by its looks.
    same_key = [spell(name) for name in known if name[-1] == entry.path[-1]][: 1 if len(entry.path) == 1 else None]
    names, cutoff = (same_key, 0.0) if same_key else ([spell(name) for name in known], 0.6)
    close = difflib.get_close_matches(spell(entry.path), names, n=1, cutoff=cutoff)
    hint = f"; did you mean {close[0]}?" if close else "."
    return f"{entry.place}: there is no setting {spell(entry.path)}{hint}"


def _variable(name: Name) -> str:
    return PREFIX + re.sub(r"[^A-Za-z0-9_]", "_", "__".join(name)).upper()


def _tree(entries: Iterable[Entry]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for entry in sorted(entries, key=lambda entry: len(entry.path)):
        table = tree
        *above, last = (SEVERAL, *entry.path[1:]) if is_one_of_several(entry.path) else entry.path
        for key in above:
            table = table.setdefault(key, {})
        table[last] = entry.value
    return tree


def _sentence(error: ErrorDetails, places: Mapping[Name, str]) -> str | None:
    """None for what a named policy has from [policy], of which it is told."""
    loc = tuple(str(part) for part in error["loc"] if part != "[key]")
    name = (UPSTREAM, *loc[1:]) if loc[0] == SEVERAL else loc
    reason = _reason(error)
    is_whole = kind_of(loc) in SECTION_KINDS and error["loc"][-1] != "[key]"
    if is_whole and error["type"] == "value_error":  # of a section as a whole: it is the key that the reason names
        within = [path for path in reversed(list(places)) if path[: len(name)] == name and path[-1] in reason]
        return f"{places[within[0]]}: {reason}." if within else None
    if name[:1] in (("policy",), ("policies",)) and not any(path[: len(name)] == name for path in places):
        return None
    if name not in places and name[:-1] in places:  # an item of a list
        name = name[:-1]
    return f"{_place_of(name, places)}: {written(name)} {reason}{_but(name, error)}"


def _place_of(name: Name, places: Mapping[Name, str]) -> str:
    """Where it was given, or what is nearest to it."""
    for length in range(len(name), 0, -1):
        for path, place in places.items():
            if path[:length] == name[:length]:
                return place
    raise KeyError(name)


def _reason(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    words = re.sub(r"^\w+ should (be|have)\b", r"must \1", error["msg"])
    return REASONS.get(error["type"], words.replace("'", '"'))


def _but(name: Name, error: ErrorDetails) -> str:
    """What was found instead, unless it is secret or long, and what was perhaps meant."""
    given = error["input"]
    if error["type"] in ("value_error", "extra_forbidden") or (name[0], name[-1]) in SECRETS:
        return "."
    if not isinstance(given, str | int | float) or len(str(given)) > 80:
        return "."
    choices = re.findall(r"'([^']+)'", str(error.get("ctx", {}).get("expected", "")))
    close = difflib.get_close_matches(str(given).lower(), choices, n=1)
    hint = f"; did you mean {json.dumps(close[0])}?" if close else "."
    return f", not {json.dumps(given)}{hint}"
