"""Keys from the file and from a variable, and what is refused."""

from pathlib import Path

import pytest

from proxy.auth_settings import AuthSettings
from proxy.config import ConfigError, load_settings

A, B = "a" * 64, "b" * 64


def auth_of(tmp_path: Path, text: str, **environ: str) -> AuthSettings:
    file = tmp_path / "weir.toml"
    file.write_text(text)
    return load_settings(file, {}, environ).auth


def test_keys_are_tables_with_limits(tmp_path: Path) -> None:
    text = f'[[auth.keys]]\nname = "app"\nsha256 = "{A}"\nmax_streams = 3\n[[auth.keys]]\nname = "b"\nsha256 = "{B}"\n'
    first, second = auth_of(tmp_path, text).keys
    assert (first.name, first.sha256, first.max_streams, first.requests_per_minute) == ("app", A, 3, None)
    assert (second.name, second.tokens_per_minute) == ("b", None)


def test_keys_fit_into_a_variable(tmp_path: Path) -> None:
    keys = auth_of(tmp_path, "", WEIR_AUTH__KEYS=f"app:{A}, b:{B}").keys
    assert [(key.name, key.sha256) for key in keys] == [("app", A), ("b", B)]


def test_a_variable_takes_the_place_of_the_files_keys_or_adds_to_one_of_them(tmp_path: Path) -> None:
    text = f'[[auth.keys]]\nname = "app"\nsha256 = "{A}"\n'
    assert [key.name for key in auth_of(tmp_path, text, WEIR_AUTH__KEYS=f"b:{B}").keys] == ["b"]
    [key] = auth_of(tmp_path, text, WEIR_AUTH__KEYS__0__MAX_STREAMS="3").keys
    assert (key.name, key.max_streams) == ("app", 3)


def test_a_rule_names_a_key_that_there_is(tmp_path: Path) -> None:
    text = f'[policies.kids]\nmode = "strict"\n[[rules]]\npolicy = "kids"\nkeys = ["app"]\n[auth]\nkeys = "app:{A}"\n'
    assert auth_of(tmp_path, text).keys[0].name == "app"
    with pytest.raises(ConfigError, match='names no key, "app"; there are other'):
        auth_of(tmp_path, text.replace(f"app:{A}", f"other:{A}"))


TABLE = "[[auth.keys]]\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f'{TABLE}name = "app"', "line 2: [[auth.keys]] sha256 must be given."),
        (f'{TABLE}name = "app"\nsha256 = "hunter2"', "must be the 64 hexadecimal digits"),
        (f'{TABLE}name = "app"\nsha256 = "{A.upper()}"', "must be the 64 hexadecimal digits"),
        (f'{TABLE}name = "a b"\nsha256 = "{A}"', "[[auth.keys]] name must be 1 to 64 letters"),
        (f'{TABLE}name = "app"\nsha256 = "{A}"\nkey = "hunter2"', "line 4: there is no setting [[auth.keys]] key"),
        (f'{TABLE}name = "app"\nsha256 = "{A}"\nmax_streams = 0', "max_streams must be greater than or equal to 1"),
        (f'{TABLE}name = "x"\nsha256 = "{A}"\n{TABLE}name = "x"\nsha256 = "{B}"', "number 2 have the same name"),
        (
            f'{TABLE}name = "x"\nsha256 = "{A}"\n{TABLE}name = "y"\nsha256 = "{A}"',
            "number 2 have the same sha256",
        ),
        ("[auth]\nkeys = 3", "[auth] keys must be a list"),
        ("[auth]\nkeys = [3]", "[auth] keys must be a table"),
        ('[auth]\nkeys = "app"', "NAME:SHA256"),
        ('[auth]\nopen = "perhaps"', "[auth] open must be true or false"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_no_key_repeated(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        auth_of(tmp_path, text)
    assert reason in str(caught.value)
    assert "hunter2" not in str(caught.value)
