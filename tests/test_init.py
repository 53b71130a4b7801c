"""The file that `weir init` writes: it says what the settings say, and changes nothing."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from proxy.config import ConfigError, load_settings
from proxy.init import settings_file, shape_of, write_settings
from proxy.risk import Category
from proxy.setting_types import Section
from proxy.settings import Settings

TEXT = settings_file()


def load(text: str, folder: Path) -> Settings:
    file = folder / "some.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file, environ={})


def uncommented(text: str) -> str:
    """With every key that has a value switched on; the tables that are examples as a whole stay off."""
    lines, is_live = [], True
    for line in text.splitlines():
        if re.match(r"#?\[", line):
            is_live = line[0] == "["
        lines.append(line[1:] if is_live and re.match(r"#\S+ = ", line) else line)
    return "\n".join(lines)


def test_the_file_as_written_is_exactly_the_defaults(tmp_path: Path) -> None:
    assert load(TEXT, tmp_path) == Settings()


def test_so_it_is_with_every_key_switched_on(tmp_path: Path) -> None:
    text = uncommented(TEXT)
    given = tomllib.loads(text)
    assert given["server"]["port"] == Settings().server.port
    assert sum(map(len, given.values())) > 30
    assert load(text, tmp_path) == Settings()


def test_every_key_of_every_section_is_there_with_its_description() -> None:
    prose = " ".join(line.removeprefix("# ") for line in TEXT.splitlines())
    for name, top in Settings.model_fields.items():
        if shape_of(top.annotation)[0] != "table":
            continue
        section: type[Section] = shape_of(top.annotation)[1]
        block = TEXT.split(f"\n[{name}]\n")[1].split("\n[")[0]
        for key, field in section.model_fields.items():
            assert re.search(rf"^#?\[*{name}\.{key}[.\]]|^#{key} =", block, re.MULTILINE), f"[{name}] {key}"
            assert (field.description or "-") in prose


def test_a_secret_is_never_shown() -> None:
    assert "\n#api_key =\n" in TEXT
    assert "*" * 5 not in TEXT


class Part(Section):
    """A part."""

    name: str
    """Its name."""
    colour: Literal["red", "green"] | None = None
    """Its colour."""


class Whole(Section):
    """All shapes that a key can have."""

    title: Annotated[str, "of anything"] = 'a "b"\n\\c — é'
    """The title."""
    sizes: tuple[int, ...] = (1, 20_000)
    """The sizes."""
    part: Part | None = None
    """Perhaps a part."""
    parts: tuple[Part, ...] = ()
    """Many parts."""
    named: Annotated[dict[str, Part], "named"] = Field(default_factory=dict)
    """Parts by name."""
    actions: dict[Category, Literal["block", "allow"]] = Field(default_factory=dict)
    """Actions."""


class Top(Section):
    whole: Whole = Whole()


def test_lists_of_tables_named_tables_and_maps_are_examples_behind_the_keys() -> None:
    text = settings_file(Top)
    assert Top.model_validate(tomllib.loads(text)) == Top()
    given = tomllib.loads(uncommented(text))
    assert Top.model_validate(given) == Top()
    assert given["whole"] == {"title": Whole().title, "sizes": [1, 20_000]}
    assert text.count("# Its keys are those of [whole.part].") == 2
    headers = [line for line in text.splitlines() if re.match(r"#?\[", line)]
    assert headers == [
        "[whole]", "#[whole.part]", "#[[whole.parts]]", "#[whole.named.NAME]", "#[whole.actions]"
    ]  # fmt: skip
    assert '#name =\n# Its colour.\n# One of: "red", "green".\n#colour =' in text
    assert '#"Sexual Content" = "block"' in text


def test_an_example_that_is_switched_on_whole_is_read() -> None:
    keys = '#name = "x"\n#colour = "red"'
    text = settings_file(Top).replace("#name =", '#name = "x"').replace("#colour =", '#colour = "red"')
    text = text.replace("# Its keys are those of [whole.part].", keys)
    given = tomllib.loads("\n".join(line[1:] if re.match(r"#\S", line) else line for line in text.splitlines()))
    part = Part(name="x", colour="red")
    whole = Top.model_validate(given).whole
    assert (whole.part, whole.parts, whole.named) == (part, (part,), {"NAME": part})
    assert set(whole.actions) == set(Category)


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weir.toml"
    file.write_text("mine")
    assert write_settings(file) == 1
    assert file.read_text() == "mine"
    said = capsys.readouterr().err
    assert f"{file} is there already and stays as it is" in said
    assert len(said.splitlines()) == 1


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_settings(tmp_path / "none" / "weir.toml") == 1
    assert capsys.readouterr().err.endswith("cannot be written: no such file or directory.\n")


def test_a_key_that_is_switched_on_without_a_value_is_refused_with_its_line(tmp_path: Path) -> None:
    text = TEXT.replace("#base_url =", "base_url =")
    line = text[: text.index("\nbase_url =")].count("\n") + 2
    with pytest.raises(ConfigError, match=f"some.toml line {line}, column .*: is not valid TOML"):
        load(text, tmp_path)
