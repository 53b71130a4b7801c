"""The names of all settings, as paths: ("policy", "mode"), ("policies", "kids", "mode"), ("rules", "0", "models").

A path is followed through the models of `settings`: a key of a section, a name of a table of sections,
a number in a list of them.
"""

import types
from collections.abc import Mapping
from enum import EnumType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from proxy.config_file import Name, is_one_of_several
from proxy.policy import Part
from proxy.policy_settings import JudgingSettings
from proxy.risk import Category
from proxy.setting_types import Section
from proxy.settings import Settings

SEVERAL = "upstream_tables"  # where Settings keeps those of several upstreams
SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
CATEGORIES, LEVELS = "categories", "levels"  # tables whose keys are the guard's words
# All that can be listed; of tables and lists of sections, as NAMED below has them.
NAMES: list[Name] = [
    *((section, key) for section, model in SECTIONS.items() for key in model.model_fields),
    *(("policy", CATEGORIES, str(category)) for category in Category),
    *(("policy", LEVELS, level) for level in ("Controversial", "Unsafe")),
    *(("policy", "channels", str(part), key) for part in Part for key in JudgingSettings.model_fields),
]


def inner(kind: Any, name: str) -> Any:
    """What the type of a setting has under that name; None where it has nothing."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Section):
        field = kind.model_fields.get(name)
        return None if field is None else field.annotation
    if origin is Annotated:
        return inner(arguments[0], name)
    if origin in (Union, types.UnionType):
        return next((found for one in arguments if (found := inner(one, name)) is not None), None)
    if origin is dict:
        keys = arguments[0]
        known = get_args(keys) if get_origin(keys) is Literal else keys if isinstance(keys, EnumType) else None
        return arguments[1] if known is None or name in list(known) else None
    return arguments[0] if origin in (list, tuple) and name.isdecimal() else None


def kind_of(path: Name) -> Any:
    """The type of the setting of that path; None where there is no such setting."""
    kind: Any = Settings
    for name in path:
        kind = inner(kind, name)
    return kind


def is_list(path: Name) -> bool:
    """Is it a list of sections, `[[rules]]` in the file?"""
    kind = kind_of(path)
    of_it = inner(kind, "0")
    return get_origin(kind) is tuple and isinstance(of_it, type) and issubclass(of_it, Section)


def is_known(path: Name) -> bool:
    """Can this be set? A named policy is named by its table alone; upstreams are looked at elsewhere."""
    is_table = len(path) == 1 and path[0] in SECTIONS
    is_own_name = path[0] == "policies" and path[2:] == ("name",)
    return kind_of(path) is not None and not is_table and not is_own_name and path[0] != SEVERAL


def siblings(path: Name) -> list[Name]:
    """The names of the same table, where it is one of several policies or rules; else none."""
    if path[0] == "policies" and len(path) > 2:
        return [("policies", path[1], *name[1:]) for name in NAMES if name[0] == "policy" and name[1] != "name"]
    for length in (1, 2):
        if len(path) > length + 1 and is_list(path[:length]):
            return [(*path[: length + 1], key) for key in inner(kind_of(path[:length]), "0").model_fields]
    return []


def written(name: Name) -> str:
    """As `weir.toml` has it: `[section] key`, `[policies.kids] key`, `[[rules]] key`."""
    if len(name) < 2:
        return f"[[{name[0]}]]" if name == ("rules",) else name[0]
    if "channels" in name[:-2]:
        return f"[{'.'.join(name[:-1])}] {name[-1]}"
    if is_one_of_several(name):
        return f"[[{name[0]}]] {'.'.join(name[2:])}".rstrip()
    for length in (1, 2):
        if is_list(name[:length]) and len(name) > length:
            return f"[[{'.'.join(name[:length])}]] {'.'.join(name[length + 1 :])}".rstrip()
    if name[0] == "policies" and len(name) > 2:
        return f"[policies.{name[1]}] {'.'.join(name[2:])}"
    return f"[{name[0]}] {'.'.join(name[1:])}"


def as_lists(tree: Mapping[str, Any], above: Name = ()) -> dict[str, Any]:
    """The tree of settings with lists of sections where their numbers were."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        path = (*above, key)
        if isinstance(value, dict):
            value = as_lists(value, path)
            value = [value[number] for number in sorted(value, key=int)] if is_list(path) else value
        found[key] = value
    return found


def inherited(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with each of `[policies.*]` filled up from `[policy]`, and each of its channels from that."""
    policies, policy = tree.get("policies", {}), tree.get("policy", {})
    if not isinstance(policies, dict) or not isinstance(policy, dict):
        return dict(tree)
    filled = {
        name: _with_channels({**over(_below(policy, given), given), "name": name}) if isinstance(given, dict) else given
        for name, given in policies.items()
    }
    return {**tree, "policy": _with_channels(policy), "policies": filled}


def _below(policy: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """[policy] as a named one finds it: what that says for all of its channels, none of [policy] says otherwise."""
    channels = policy.get("channels")
    if not isinstance(channels, dict):
        return dict(policy)
    kept = {part: without(one, given) if isinstance(one, dict) else one for part, one in channels.items()}
    return {**policy, "channels": kept}


def without(table: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The table without the keys that are given elsewhere, in the tables within it as well."""
    kept: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and isinstance(given.get(key), dict):
            kept[key] = without(value, given[key])
        elif key not in given:
            kept[key] = value
    return kept


def _with_channels(policy: Mapping[str, Any]) -> dict[str, Any]:
    channels = policy.get("channels")
    if not isinstance(channels, dict):
        return dict(policy)
    judging = {key: value for key, value in policy.items() if key in JudgingSettings.model_fields}
    filled = {part: over(judging, given) if isinstance(given, dict) else given for part, given in channels.items()}
    return {**policy, "channels": filled}


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables as one, key by key; the upper one wins. A `window` belongs to its `release` and goes with it."""
    joined = dict(below)
    if above.get("release") == "hold":
        joined.pop("window", None)
    for key, value in above.items():
        lower = joined.get(key)
        joined[key] = over(lower, value) if isinstance(value, dict) and isinstance(lower, dict) else value
    return joined
