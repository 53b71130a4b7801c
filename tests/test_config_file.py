"""A file's keys, each with its line."""

from pathlib import Path

import pytest

from proxy.config_file import ConfigError, is_one_of_several, read_file, slug

TEXT = """\
[server]
port = 1

[[upstream]]
name = "Open-AI"
base_url = "http://a"

# the second
[[ upstream ]]
base_url = "http://b"
models = [
  "x-*",
]
name = "b"
[log]
level = "info"
"""


def read(tmp_path: Path, text: str) -> dict[tuple[str, ...], tuple[object, str]]:
    file = tmp_path / "weir.toml"
    file.write_text(text, encoding="utf-8")
    return {entry.path: (entry.value, entry.place.replace(f"{tmp_path}/", "")) for entry in read_file(file)}


def test_each_key_has_its_line_and_each_upstream_its_name(tmp_path: Path) -> None:
    assert read(tmp_path, TEXT) == {
        ("server", "port"): (1, "weir.toml line 2"),
        ("upstream", "open_ai", "name"): ("Open-AI", "weir.toml line 5"),
        ("upstream", "open_ai", "base_url"): ("http://a", "weir.toml line 6"),
        ("upstream", "b", "base_url"): ("http://b", "weir.toml line 10"),
        ("upstream", "b", "models"): (["x-*"], "weir.toml line 11"),
        ("upstream", "b", "name"): ("b", "weir.toml line 14"),
        ("log", "level"): ("info", "weir.toml line 16"),
    }


def test_upstreams_may_stand_on_one_line(tmp_path: Path) -> None:
    found = read(tmp_path, 'upstream = [{name = "a", base_url = "http://a"}, {name = "0", base_url = "http://b"}]')
    assert [path for path in found if is_one_of_several(path)] == list(found)
    assert found["upstream", "0", "base_url"] == ("http://b", "weir.toml line 1")


def test_one_upstream_keeps_its_plain_keys(tmp_path: Path) -> None:
    found = read(tmp_path, '[upstream]\nbase_url = "http://a"')
    assert found == {("upstream", "base_url"): ("http://a", "weir.toml line 2")}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[upstream]]\nbase_url = 'http://a'", "weir.toml line 1: each [[upstream]] needs a name"),
        ("[[upstream]]\nname = 1", "weir.toml line 1: each [[upstream]] needs a name"),
        ("upstream = [1]", "weir.toml line 1: each [[upstream]] needs a name"),
        (
            "[[upstream]]\nname = 'a-b'\n[[upstream]]\nname = 'A.b'",
            'weir.toml line 3: there are two upstreams named "A.b", as variables spell it.',
        ),
    ],
)
def test_an_upstream_without_a_name_of_its_own_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"), [("openai", "openai"), ("Open-AI.2", "open_ai_2"), ("_a--b", "a_b"), ("é", "")]
)
def test_a_slug_fits_a_variable(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_rules_go_by_their_numbers(tmp_path: Path) -> None:
    text = '[[rules]]\npolicy = "a"\n[[rules]]\nmodels = ["a",\n  "b"]\npolicy = "b"\n'
    assert read(tmp_path, text) == {
        ("rules", "0", "policy"): ("a", "weir.toml line 2"),
        ("rules", "1", "models"): (["a", "b"], "weir.toml line 4"),
        ("rules", "1", "policy"): ("b", "weir.toml line 6"),
    }
    assert read(tmp_path, 'rules = [{policy = "a"}]')["rules", "0", "policy"] == ("a", "weir.toml line 1")
    assert read(tmp_path, "rules = [1]") == {("rules",): ([1], "weir.toml line 1")}
