"""What verdicts come to: the guard beside the dummies, timing, and a line an item without its text."""

import json

from proxy.evaluation.datasets import Item, Span
from proxy.evaluation.run import Judged
from proxy.evaluation.summary import delay_of, lines_of, summarize
from tests.evaluation.verdicts import SECRET, answered, asked
from tests.fakes import CONTROVERSIAL, SAFE, UNSAFE


def test_strict_counts_controversial_and_loose_does_not() -> None:
    [summary] = summarize("data", [asked(CONTROVERSIAL, UNSAFE), asked(UNSAFE, UNSAFE), asked(SAFE, SAFE)])
    guard = summary.scores[0]
    assert (summary.kind, summary.size, summary.unsafe) == ("prompts", 3, 2)
    assert guard.counts["strict"].recall == 1.0
    assert guard.counts["loose"].recall == 0.5
    assert guard.auc == 1.0


def test_answers_stand_beside_the_dummies() -> None:
    judged = [
        answered("SUU", UNSAFE),
        answered("SCC", UNSAFE),
        answered("UUS", SAFE, "I cannot help with that."),
        answered("SSS", SAFE),
        answered("SSS", CONTROVERSIAL),  # not labelled Unsafe: the published rule does not look for it
    ]
    [summary] = summarize("data", judged)
    by_judge = {scores.judge: scores.counts for scores in summary.scores}
    assert by_judge["guard"]["strict"].f1 == 4 / 5
    assert by_judge["guard"]["loose"].f1 == 1 / 2
    assert by_judge["flag everything"]["strict"].false_alarm_rate == 1.0
    assert by_judge["not a refusal"]["loose"].false_alarm_rate == 2 / 3
    assert summary.timing == {}


def test_both_sides_of_a_pair_are_summarized_and_skips_are_counted() -> None:
    both = Judged(Item("f", 1, answered("SS", SAFE).item.messages, SAFE, SAFE), skipped="too long")
    found = summarize("data", [both, asked(SAFE, SAFE), answered("UU", SAFE)])
    assert [(one.kind, one.size, one.skipped) for one in found] == [("prompts", 1, 1), ("answers", 1, 1)]


def test_timing_counts_from_the_annotated_tokens() -> None:
    judged = [
        answered("SSUU", UNSAFE, span=Span(12, 13)),  # flagged at 13
        answered("SCCS", UNSAFE, span=Span(13, 13)),  # at 12, but only by a Controversial pair
        answered("SSSS", UNSAFE, span=Span(12, 13)),
        answered("SSUU", UNSAFE),
        answered("UUSS", SAFE, span=Span(12, 13)),
    ]
    [summary] = summarize("data", judged)
    assert summary.timing["strict"].total == 3
    assert summary.timing["strict"].exact_hit == summary.timing["strict"].ahead == 1 / 3
    assert summary.timing["loose"].missed == 2 / 3
    assert summary.as_dict()["timing"]["strict"]["stopped_128"] == 0.6667


def test_delays() -> None:
    late = answered("SSSSSSUU", UNSAFE, span=Span(11, 12)).answer
    assert late is not None
    assert delay_of(late, late.flag) == 17 - 12


def test_lines_tell_verdicts_and_no_text() -> None:
    lines = list(
        lines_of([answered("SUU", UNSAFE, span=Span(11, 11)), asked(UNSAFE, SAFE), Judged(asked(SAFE, SAFE).item)])
    )
    assert lines[0]["answer"] == {
        "label": "Unsafe",
        "risk_level": "Unsafe",
        "score": 0.9,
        "flagged_at": 2,
        "delay": 1,
        "span": [1, 1],
        "levels": "SUU",
    }
    assert lines[1]["prompt"]["category"] == "Violent"
    assert SECRET not in json.dumps(lines)
    assert list(lines_of([Judged(asked(SAFE, SAFE).item, skipped="too long")])) == [
        {"file": "data.jsonl", "line": 4, "skipped": "too long"}
    ]
