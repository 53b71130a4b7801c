"""Tables for people: they fit 80 columns, and show the dummies where there is something to find."""

from io import StringIO

from rich.console import Console

from proxy.evaluation.datasets import Span
from proxy.evaluation.report import percent, scores_tables, timing_table
from proxy.evaluation.summary import summarize
from tests.evaluation.verdicts import answered, asked
from tests.fakes import SAFE, UNSAFE


def printed(*tables: object) -> str:
    console = Console(file=StringIO(), width=80)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_scores_fit_80_columns_with_both_modes() -> None:
    judged = [answered("SCC", UNSAFE), answered("UUU", UNSAFE), answered("SSS", SAFE)]
    text = printed(*scores_tables(summarize("some-long-name-of-a-data-set", judged), "both"))
    assert "some-long-name-of-a-data-set: 3 answers, 2 of them unsafe" in text
    assert "100.0 / 66.7" in text
    assert "not a refusal" in text
    assert "…" not in text


def test_a_benign_set_shows_false_alarms_and_no_dummies() -> None:
    text = printed(*scores_tables(summarize("benign", [asked(SAFE, SAFE), asked(UNSAFE, SAFE)]), "loose"))
    assert "50.0" in text
    assert "flag everything" not in text


def test_timing_is_shown_where_sentences_are_annotated() -> None:
    judged = [answered("SUU", UNSAFE, span=Span(12, 13)), answered("SSS", UNSAFE, span=Span(11, 13))]
    table = timing_table(summarize("data", judged), "both")
    assert "50.0" in printed(table)
    assert timing_table(summarize("data", [asked(SAFE, SAFE)]), "both") is None


def test_what_has_no_value_is_a_dash() -> None:
    assert (percent(None), percent(0.1234)) == ("-", "12.3")
