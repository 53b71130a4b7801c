"""One verdict, two notations."""

import pytest

from adapters.base import Assessment, Block, Note, Report
from adapters.notations import (
    OPENAI_CATEGORIES,
    category_key,
    moderation,
    moderation_entry,
    weir_block,
    weir_finish,
    weir_note,
)

UNSAFE = Note("reasoning", 5, 9, "Unsafe", "Self-Harm", 0.123456)
SAFE = Note("content", 0, 4, "Safe", None, 1.0)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Violent", "violent"),
        ("Sexual Content", "sexual_content"),
        ("Self-Harm", "self_harm"),
        ("PII", "pii"),
        ("Suicide & Self-Harm ", "suicide_self_harm"),
    ],
)
def test_categories_are_written_as_openai_writes_its_own(name: str, key: str) -> None:
    assert category_key(name) == key


def test_weir_notes() -> None:
    risk = {"risk_level": "Unsafe", "category": "Self-Harm", "risk_prob": 0.1235}
    safe = {"risk_level": "Safe", "category": None, "risk_prob": 1.0}
    assert weir_note(UNSAFE) == {**risk, "offset": [5, 9], "channel": "reasoning"}
    assert weir_block(Block(0, UNSAFE, 3)) == {
        "action": "block",
        **risk,
        "channel": "reasoning",
        "offset": 5,
        "tokens": 3,
    }
    assert weir_finish(Report((UNSAFE, SAFE), Assessment(False, SAFE))) == {
        "channels": {"reasoning": {**risk, "offset": [5, 9]}, "content": {**safe, "offset": [0, 4]}},
        "prompt": safe,
    }
    assert weir_finish(Report()) == {"channels": {}}
    assert weir_finish(Report(prompt=Assessment(False, None))) == {"channels": {}}


def test_moderation_has_a_result_for_each_answer() -> None:
    flagged = Assessment(True, UNSAFE, {"Self-Harm": 0.97777, "PII": 0.01})
    clean = Assessment(False, UNSAFE, {"Self-Harm": 0.4, "PII": 0.01})
    found = moderation("G", clean, [flagged, Assessment(False, SAFE)])
    (prompt,) = found["input"]["results"]
    assert prompt["flagged"] is False
    assert prompt["categories"] == {"self_harm": False, "pii": False}
    first, second = found["output"]["results"]
    assert first == {
        "type": "moderation_result",
        "model": "G",
        "flagged": True,
        "categories": {"self_harm": True, "pii": False},
        "category_scores": {"self_harm": 0.9778, "pii": 0.01},
        "category_applied_input_types": {"self_harm": ["text"], "pii": ["text"]},
    }
    assert second["categories"] == {}


def test_what_was_not_judged_is_an_error_and_never_clean() -> None:
    found = moderation("G", None, [Assessment(False, None), None])
    assert found["input"]["type"] == found["output"]["type"] == "error"
    assert found["input"].keys() == {"type", "code", "message"}


def test_a_moderation_entry_has_openais_categories_too() -> None:
    note = Note("prompt", 0, 0, "Unsafe", "Sexual Content", 0.9)
    entry = moderation_entry("G", Assessment(True, note, {"Sexual Content": 0.9, "Violent": 0.1}))
    assert entry["flagged"]
    assert {name for name, is_set in entry["categories"].items() if is_set} == {"sexual", "sexual_content"}
    assert (entry["category_scores"]["sexual"], entry["category_scores"]["sexual/minors"]) == (0.9, 0.0)
    assert entry["category_applied_input_types"]["sexual/minors"] == []
    assert set(OPENAI_CATEGORIES) <= entry["categories"].keys()
