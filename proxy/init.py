"""`weir init`: a `weir.toml` with every key, its default and what it is for.

It is made from the models of `settings` alone, so it cannot say anything else than they do. In the file a line of prose
begins with "# ", a key that may be uncommented with "#" and no space. As written it loads to exactly the defaults.
"""

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from proxy.config import DEFAULT_FILE
from proxy.config_file import UPSTREAM
from proxy.setting_names import SEVERAL
from proxy.settings import Settings

STANDARD_OUTPUT = "-"
WIDTH = 118
HEAD = """\
# The settings of Weir: every key, its default and what it is for. Take away the # before a key to change it;
# one with nothing behind the = is not set until you give it a value.
# Variables (WEIR_SECTION__KEY) win over this file, flags of the command line over both. Check it with `weir doctor`.
"""


def write_settings(file: Path) -> int:
    """Write the file, or print it for "-"; returns the exit status. A file that is there stays as it is."""
    if str(file) == STANDARD_OUTPUT:
        print(settings_file(), end="")
        return 0
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(settings_file())
    except FileExistsError:
        print(
            f"{file} is there already and stays as it is; `weir init -` prints what a new one holds.", file=sys.stderr
        )
        return 1
    except OSError as exc:
        print(f"{file} cannot be written: {(exc.strerror or str(exc)).lower()}.", file=sys.stderr)
        return 1
    named = "" if file == DEFAULT_FILE else f" --config {file}"  # it is found by itself
    print(f"{file} is written. Set base_url in its [upstream], then: weir doctor{named}")
    return 0


def settings_file(settings: type[BaseModel] = Settings) -> str:
    """All of `weir.toml`, as text."""
    return HEAD + "".join(f"\n{line}" for line in _table((), settings, {}, is_live=True)) + "\n"


def _table(path: tuple[str, ...], model: type[BaseModel], shown: dict[Any, str], *, is_live: bool) -> Iterator[str]:
    """The keys of a table, then the tables in it. One that is not live is an example, commented out as a whole.

    `shown`: where the keys of each model stand already, so that no example repeats them.
    """
    inner: list[str] = []
    for name, field in model.model_fields.items():
        kind, below = shape_of(field.annotation)
        if kind == "key":
            yield from _key(name, field)
        else:
            inner += _inside((*path, name), field, kind, below, shown, is_live=is_live)
    yield from inner


def _inside(
    path: tuple[str, ...], field: FieldInfo, kind: str, below: Any, shown: dict[Any, str], *, is_live: bool
) -> Iterator[str]:
    name = ".".join(path)
    if path == (SEVERAL,):
        name, kind = UPSTREAM, "tables"
    is_live = is_live and kind == "table" and field.default is not None
    header = {"table": f"[{name}]", "tables": f"[[{name}]]", "named": f"[{name}.NAME]", "map": f"[{name}]"}[kind]
    yield ""
    yield from _prose(field.description or _said_of(below))
    yield header if is_live else f"#{header}"
    if kind == "map":
        yield from _entries(*below)
    elif below in shown and not is_live:
        yield f"# Its keys are those of {shown[below]}."
    else:
        shown[below] = header
        yield from _table((*path, *(["NAME"] if kind == "named" else [])), below, shown, is_live=is_live)


def _entries(key: Any, value: Any) -> Iterator[str]:
    """An entry for each key that there can be, with the first value that it may have."""
    choices = get_args(value) if get_origin(value) is Literal else ()
    yield from _prose(_choices(choices))
    names = list(key) if isinstance(key, type) and issubclass(key, Enum) else get_args(key) or ["NAME"]
    for name in names:
        yield f"#{json.dumps(str(name))} ={f' {_toml(choices[0])}' if choices else ''}"


def _key(name: str, field: FieldInfo) -> Iterator[str]:
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    literals = [part for part in _parts(field.annotation) if get_origin(part) is Literal]
    yield from _prose(field.description)
    yield from _prose(_choices([choice for part in literals for choice in get_args(part)]))
    # A secret has no default that could be shown.
    is_set = default is not None and not isinstance(default, SecretStr)
    yield f"#{name} = {_toml(default)}" if is_set else f"#{name} ="


def shape_of(annotation: Any) -> tuple[str, Any]:
    """What TOML needs for a field, and of what.

    ("key", None); ("table" or "tables" or "named", a model), where "named" is a table of tables that the user names;
    ("map", the types of key and value).
    """
    parts = _parts(annotation)
    if models := [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]:
        return "table", models[0]
    for part in parts:
        inside = [inner for argument in get_args(part) for inner in _parts(argument)]
        models = [inner for inner in inside if isinstance(inner, type) and issubclass(inner, BaseModel)]
        if get_origin(part) in (list, tuple) and models:
            return "tables", models[0]
        if get_origin(part) in (dict, Mapping):
            return ("named", models[0]) if models else ("map", (inside[0], inside[1]))
    return "key", None


def _parts(annotation: Any) -> list[Any]:
    """The alternatives of a type, out of their unions and annotations."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for argument in get_args(annotation) for part in _parts(argument)]
    return [annotation]


def _said_of(model: Any) -> str:
    # A model that has no docstring of its own would show pydantic's.
    return str(model.__dict__.get("__doc__") or "") if isinstance(model, type) else ""


def _choices(choices: Any) -> str:
    return f"One of: {', '.join(map(_toml, choices))}." if choices else ""


def _prose(text: str | None) -> Iterator[str]:
    for line in textwrap.wrap(text or "", WIDTH, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:_}" if value >= 10_000 else str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's escapes are TOML's.
    return json.dumps(str(value), ensure_ascii=False)
