"""What a wrong command line is answered with."""

import pytest

from proxy.cli import main


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert not shown.out
    return shown.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["srve"], "; did you mean serve?"),
        (["serve", "--prot", "1"], "weir serve: error: unrecognized arguments: --prot 1; did you mean --port?"),
        (["serve", "--upstraem=x"], "did you mean --upstream?"),
        (["records", "list", "--limt", "3"], "weir records list: error: unrecognized arguments: --limt 3"),
        (["completion", "fsh"], "did you mean fish?"),
    ],
)
def test_a_mistake_is_told_with_what_was_meant(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in said(arguments, capsys)


def test_nothing_is_guessed_where_nothing_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean" not in said(["serve", "--frobnicate"], capsys)


def test_a_short_usage_is_shown_and_a_long_one_does_not_hide_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(["completion"], capsys).startswith("usage: weir completion")
    lines = said(["serve", "--prot", "1"], capsys).splitlines()
    assert len(lines) == 2
    assert lines[1] == "`weir serve --help` says what there is."


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert "examples:" in shown.err
    assert "moderate" in shown.err
