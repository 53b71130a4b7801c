"""The flags of `weir records`."""

import argparse

import pytest

from proxy.records import RequestOutcome
from proxy.store.options import OUTCOMES, add_actions


def add_settings(action: argparse.ArgumentParser) -> None:
    action.add_argument("--config")


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_actions(parser, add_settings)
    return parser.parse_args(arguments)


def test_the_outcomes_are_those_of_records() -> None:
    assert list(OUTCOMES) == [str(one) for one in RequestOutcome]


def test_each_action_has_its_flags_and_the_settings() -> None:
    assert parsed("list", "--config", "x").limit == 50
    assert parsed("show", "weir-1").id == "weir-1"
    assert parsed("export", "--format", "csv", "--since", "1d").format == "csv"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("drop",),
        ("show",),
        ("list", "--limit", "0"),
        ("list", "--since", "later"),
        ("list", "--outcome", "fine"),
        ("export", "--format", "xml"),
        ("export", "--category", "Weather"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
