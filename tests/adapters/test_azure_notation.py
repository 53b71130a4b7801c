"""Verdicts as Azure writes its own."""

from adapters.azure_notation import azure_block, azure_finish, azure_note, azure_prompt
from adapters.base import Assessment, Block, Note, Report

SAFE = Note("content", 0, 4, "Safe", None, 1.0)
VIOLENT = Note("content", 4, 9, "Unsafe", "Violent", 0.9)
DOUBTFUL = Note("reasoning", 0, 3, "Controversial", "Violent", 0.6)
UNNAMED = Note("content", 4, 9, "Unsafe", "Political", 0.9)
COPIED = Note("content", 4, 9, "Unsafe", "Copyright", 0.9)

CLEAN = {
    "hate": {"filtered": False, "severity": "safe"},
    "self_harm": {"filtered": False, "severity": "safe"},
    "sexual": {"filtered": False, "severity": "safe"},
    "violence": {"filtered": False, "severity": "safe"},
    "protected_material_text": {"filtered": False, "detected": False},
}


def test_a_note_has_all_categories_and_the_offsets_of_the_text() -> None:
    assert azure_note(SAFE) == {
        "content_filter_results": CLEAN,
        "content_filter_offsets": {"check_offset": 0, "start_offset": 0, "end_offset": 4},
    }
    found = azure_note(DOUBTFUL)
    assert found.keys() == {"content_filter_results"}
    assert found["content_filter_results"]["violence"] == {"filtered": False, "severity": "medium"}


def test_a_finish_has_the_worst_of_each_category() -> None:
    for notes in ((VIOLENT, DOUBTFUL), (DOUBTFUL, VIOLENT)):
        found = azure_finish(Report((SAFE, *notes)))["content_filter_results"]
        assert found == CLEAN | {"violence": {"filtered": False, "severity": "high"}}
    copied = azure_finish(Report((COPIED,)))["content_filter_results"]
    assert copied["protected_material_text"] == {"filtered": False, "detected": True}
    assert azure_finish(Report((SAFE,), scanned="partial")) == {}


def test_a_cut_says_what_was_filtered() -> None:
    found = azure_block(Block(0, VIOLENT, 3), Report((VIOLENT, DOUBTFUL)))["content_filter_results"]
    assert found == CLEAN | {"violence": {"filtered": True, "severity": "high"}}
    assert azure_block(Block(0, UNNAMED, 3), Report())["content_filter_results"] == CLEAN


def test_a_prompt_is_told_where_it_was_judged() -> None:
    note = Note("prompt", 0, 0, "Unsafe", "Jailbreak", 0.9)
    [found] = azure_prompt(Report(prompt=Assessment(True, note)))["prompt_filter_results"]
    assert found["prompt_index"] == 0
    assert found["content_filter_results"]["jailbreak"] == {"filtered": False, "detected": True}
    assert found["content_filter_results"].keys() == {"hate", "self_harm", "sexual", "violence", "jailbreak"}
    assert azure_prompt(Report()) == azure_prompt(Report(prompt=Assessment(False, None))) == {}
