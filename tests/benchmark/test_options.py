"""Flags become sizes."""

import argparse

import pytest

from proxy.benchmark.options import Wanted, add_options, count, wanted_of
from proxy.benchmark.sizes import Sizes


def wanted(*arguments: str) -> Wanted:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return wanted_of(parser.parse_args(["guard", *arguments]))


def test_nothing_given_is_the_whole_protocol() -> None:
    assert wanted() == Wanted()
    assert wanted().sizes == Sizes()
    assert (Sizes().pace.seconds, Sizes().pace.seeds) == (10, 2)
    assert Sizes().contexts == (512, 1024, 2048, 4096, 8000)


def test_what_is_given_is_taken() -> None:
    found = wanted("--only", "steps", "door", "--streams", "2", "3", "--history", "9", "--seeds", "5", "--no-process")
    assert found.process is False
    assert (found.sizes.tables, found.sizes.streams, found.sizes.history) == (["steps", "door"], [2, 3], 9)
    assert (found.sizes.pace.seeds, found.sizes.pace.seconds) == (5, 10)


def test_flags_win_over_the_quick_sizes() -> None:
    quick = Wanted(quick=True).sizes
    assert quick.pace.seconds < Sizes().pace.seconds
    assert Wanted(quick=True, seconds=7.0, contexts=[99]).sizes.contexts == [99]
    assert Wanted(quick=True, seconds=7.0).sizes.pace.seconds == 7.0
    assert Wanted().sizes == Sizes()


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", ""])
def test_a_count_is_a_whole_number_from_one_on(text: str) -> None:
    assert count("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="whole number"):
        count(text)
