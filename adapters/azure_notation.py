"""Verdicts as Azure OpenAI writes its own: `content_filter_results` on choices, `prompt_filter_results` beside them.

From Azure's documentation of content filtering (learn.microsoft.com/azure/ai-services/openai/concepts/content-filter).
Its chunks of results alone, without a delta, crash clients that read OpenAI's chunks, so ours ride on chunks of text.
"""

from collections.abc import Iterable
from typing import Any

from adapters.base import Block, Note, Report

CONTENT = "content"  # the channel whose offsets are told: Azure's are those of a choice's one text

# Azure's categories with a severity, and those of the guard that are meant. What is in neither list (Political, PII,
# Illegal Acts) Azure has no name for: that an answer was cut is told by its finish reason all the same.
SEVERITIES = {"hate": "Unethical", "self_harm": "Self-Harm", "sexual": "Sexual Content", "violence": "Violent"}
# Azure's categories that are there or not.
DETECTIONS = {"jailbreak": "Jailbreak"}
ANSWER_DETECTIONS = {"protected_material_text": "Copyright"}
SEVERITY_OF = {"Safe": "safe", "Controversial": "medium", "Unsafe": "high"}
ORDER = ("safe", "low", "medium", "high")


def azure_note(note: Note) -> dict[str, Any]:
    """Beside a choice's delta: the worst of its tokens, and which characters of the text they cover."""
    found = {"content_filter_results": _results([note], ANSWER_DETECTIONS)}
    if note.channel == CONTENT:
        found["content_filter_offsets"] = {
            "check_offset": note.start,
            "start_offset": note.start,
            "end_offset": note.end,
        }
    return found


def azure_finish(report: Report) -> dict[str, Any]:
    """Beside a finish reason: the worst of each channel. Nothing where the answer was not judged."""
    if report.scanned is not None:
        return {}
    return {"content_filter_results": _results(report.notes, ANSWER_DETECTIONS)}


def azure_block(block: Block, report: Report) -> dict[str, Any]:
    """Beside a cut: the same, with the category that was filtered."""
    return {"content_filter_results": _results([*report.notes, block.flagged], ANSWER_DETECTIONS, block.flagged)}


def azure_prompt(report: Report) -> dict[str, Any]:
    """Beside the choices, once: the prompt. Nothing where it was not judged, or is only watched."""
    if report.prompt is None or report.prompt.worst is None:
        return {}
    results = _results([report.prompt.worst], DETECTIONS)
    return {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": results}]}


def _results(notes: Iterable[Note], detections: dict[str, str], filtered: Note | None = None) -> dict[str, Any]:
    levels: dict[str, str] = {}
    for note in notes:
        if note.category is not None:
            known = levels.get(note.category, "safe")
            levels[note.category] = max(known, SEVERITY_OF[note.risk_level], key=ORDER.index)
    cut = None if filtered is None else filtered.category
    severe = {
        name: {"filtered": category == cut, "severity": levels.get(category, "safe")}
        for name, category in SEVERITIES.items()
    }
    detected = {
        name: {"filtered": category == cut, "detected": category in levels} for name, category in detections.items()
    }
    return {**severe, **detected}
