"""Verdicts as clients read them: our `weir` object, and OpenAI's inline `moderation`."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from adapters.base import Assessment, Block, Note, Report
from adapters.strict_json import write_checked

# Probabilities are told to four digits.
_STEPS: Final = 10_000
_written: Final[dict[int, str]] = {}  # each of them that was told: to write a number takes longer than to find it


def rounded(probability: float) -> float:
    """A fifth of the time that `round` takes."""
    return int(probability * _STEPS + 0.5) / _STEPS


def weir_risk(note: Note) -> dict[str, Any]:
    return {
        "risk_level": note.risk_level,
        "category": note.category,
        "risk_prob": rounded(note.probability),
    }


def weir_note(note: Note) -> dict[str, Any]:
    """Beside released text: the worst of the tokens that cover these characters of the channel."""
    return {**weir_risk(note), "offset": [note.start, note.end], "channel": note.channel}


def written_note(note: Note) -> str:
    """`weir_note` of content as JSON, in a tenth of the time."""
    step = int(note.probability * _STEPS + 0.5)
    probability = _written.get(step)
    if probability is None:
        probability = _written[step] = write_checked(step / _STEPS)
    category = "null" if note.category is None else write_checked(note.category)
    return (
        f'{{"risk_level":"{note.risk_level}","category":{category},"risk_prob":{probability},'
        f'"offset":[{note.start},{note.end}],"channel":"content"}}'
    )


def weir_finish(report: Report) -> dict[str, Any]:
    """Beside a finish: the worst of each channel, and of the prompt where it was judged.

    {"channels": {"content": {"risk_level", "category", "risk_prob", "offset"}}, "prompt": {...}}
    """
    notation: dict[str, Any] = {
        "channels": {note.channel: {**weir_risk(note), "offset": [note.start, note.end]} for note in report.notes}
    }
    if report.prompt is not None and report.prompt.worst is not None:
        notation["prompt"] = weir_risk(report.prompt.worst)
    if report.scanned is not None:
        notation["scanned"] = report.scanned
    return notation


def weir_block(block: Block) -> dict[str, Any]:
    """Beside a cut: why, and the offset of the first character of the channel that was withheld."""
    flagged = block.flagged
    return {
        "action": "block",
        **weir_risk(flagged),
        "channel": flagged.channel,
        "offset": flagged.start,
        "tokens": block.tokens,
    }


@lru_cache(maxsize=64)
def category_key(category: str) -> str:
    """ "Sexual Content" -> "sexual_content", as OpenAI writes its own."""
    return re.sub(r"[^a-z0-9]+", "_", category.lower()).strip("_")


def moderation(model: str, prompt: Assessment | None, answers: Iterable[Assessment | None]) -> dict[str, Any]:
    """The `moderation` object of openai-python 3: one result for the prompt, one for each answer."""
    return {"input": _side(model, [prompt]), "output": _side(model, list(answers))}


# OpenAI's categories and ours. The narrower ones ("violence/graphic") the guard does not tell apart:
# they are never set, and their score is 0.
OPENAI_CATEGORIES: dict[str, str | None] = {
    "harassment": "Unethical",
    "harassment/threatening": None,
    "hate": "Unethical",
    "hate/threatening": None,
    "illicit": "Illegal Acts",
    "illicit/violent": None,
    "self-harm": "Self-Harm",
    "self-harm/instructions": None,
    "self-harm/intent": None,
    "sexual": "Sexual Content",
    "sexual/minors": None,
    "violence": "Violent",
    "violence/graphic": None,
}


def moderation_entry(model: str, assessment: Assessment) -> dict[str, Any]:
    """One result of /v1/moderations: our categories, and OpenAI's for the clients that insist on them."""
    result = _result(model, assessment)
    for name, category in OPENAI_CATEGORIES.items():
        key = category_key(category or "")
        result["categories"][name] = result["categories"].get(key, False)
        result["category_scores"][name] = result["category_scores"].get(key, 0.0)
        result["category_applied_input_types"][name] = ["text"] if category else []
    return {name: value for name, value in result.items() if name not in ("type", "model")}


def _side(model: str, assessments: list[Assessment | None]) -> dict[str, Any]:
    judged = [assessment for assessment in assessments if assessment is not None]
    if not judged or len(judged) < len(assessments):
        return {"type": "error", "code": "not_moderated", "message": "This text was not moderated."}
    results = [_result(model, assessment) for assessment in judged]
    return {"type": "moderation_results", "model": model, "results": results}


def _result(model: str, assessment: Assessment) -> dict[str, Any]:
    scores = {category_key(name): rounded(score) for name, score in assessment.scores.items()}
    worst = category_key(assessment.worst.category) if assessment.worst and assessment.worst.category else None
    return {
        "type": "moderation_result",
        "model": model,
        "flagged": assessment.is_flagged,
        "categories": {name: assessment.is_flagged and name == worst for name in scores},
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in scores},
    }
