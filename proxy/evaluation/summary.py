"""What the verdicts on one file come to: figures of the guard, and of judges that know nothing, beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.evaluation.metrics import (
    FLAGS,
    LOOSE,
    STRICT,
    Counts,
    Flag,
    Timing,
    area_under_curve,
    count,
    delay,
    is_refusal,
    pair_score,
    timing,
)
from proxy.evaluation.run import Answer, Judged
from proxy.risk import RISK_LEVELS, RiskLevel

PROMPTS, ANSWERS = "prompts", "answers"
GUARD, EVERYTHING, NOT_REFUSAL = "guard", "flag everything", "not a refusal"
MODES = (STRICT, LOOSE)


@dataclass(frozen=True, slots=True)
class Scores:
    """One judge on one set."""

    judge: str
    counts: dict[str, Counts]  # by mode
    auc: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {mode: _counts_dict(counts) for mode, counts in self.counts.items()} | {"auc": _round(self.auc)}


@dataclass(frozen=True, slots=True)
class Summary:
    """The prompts, or the answers, of one file."""

    data: str
    kind: str
    size: int
    unsafe: int
    skipped: int
    scores: tuple[Scores, ...]
    timing: dict[str, Timing]  # by mode; empty where no sentence is annotated

    def as_dict(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "kind": self.kind,
            "size": self.size,
            "unsafe": self.unsafe,
            "skipped": self.skipped,
            "judges": {scores.judge: scores.as_dict() for scores in self.scores},
            "timing": {mode: _timing_dict(found) for mode, found in self.timing.items()} or None,
        }


def summarize(data: str, judged: Sequence[Judged]) -> list[Summary]:
    """One summary for the labelled prompts of a file and one for its labelled answers."""
    return [summary for summary in (_prompts(data, judged), _answers(data, judged)) if summary is not None]


def _prompts(data: str, judged: Sequence[Judged]) -> Summary | None:
    labelled = [one for one in judged if one.item.prompt_risk is not None]
    found = [(one.prompt, one.item.prompt_risk is RiskLevel.UNSAFE) for one in labelled if one.prompt is not None]
    if not labelled:
        return None
    unsafe = [is_unsafe for _, is_unsafe in found]
    counts = {mode: count([risk.level in FLAGS[mode] for risk, _ in found], unsafe) for mode in MODES}
    auc = area_under_curve([1.0 - risk.levels[0] for risk, _ in found], unsafe)
    scores = (Scores(GUARD, counts, auc), _dummy(EVERYTHING, [True] * len(found), unsafe))
    return Summary(data, PROMPTS, len(found), sum(unsafe), len(labelled) - len(found), scores, {})


def _answers(data: str, judged: Sequence[Judged]) -> Summary | None:
    labelled = [one for one in judged if one.item.answer_risk is not None]
    found = [(one, one.answer) for one in labelled if one.answer is not None]
    if not labelled:
        return None
    unsafe = [one.item.answer_risk is RiskLevel.UNSAFE for one, _ in found]
    flags = [answer.flag for _, answer in found]
    counts = {mode: count([flag.level in FLAGS[mode] for flag in flags], unsafe) for mode in MODES}
    auc = area_under_curve([pair_score(answer.harms) for _, answer in found], unsafe)
    scores = (
        Scores(GUARD, counts, auc),
        _dummy(EVERYTHING, [True] * len(found), unsafe),
        _dummy(NOT_REFUSAL, [not is_refusal(one.item.answer) for one, _ in found], unsafe),
    )
    return Summary(data, ANSWERS, len(found), sum(unsafe), len(labelled) - len(found), scores, timing_of(judged))


def timing_of(judged: Sequence[Judged]) -> dict[str, Timing]:
    """By mode: strict is the published rule, loose counts Unsafe alone."""
    answers = [one.answer for one in judged if one.answer is not None and one.item.answer_risk is RiskLevel.UNSAFE]
    spanned = [answer for answer in answers if answer.span is not None]
    if not spanned:
        return {}
    return {
        STRICT: timing([delay_of(answer, answer.flag) for answer in spanned]),
        LOOSE: timing([delay_of(answer, answer.loose_flag) for answer in spanned]),
    }


def delay_of(answer: Answer, flag: Flag) -> int | None:
    if flag.at < 0 or answer.span is None:
        return None
    return delay(answer.start + flag.at, answer.span.start, answer.span.end)


def lines_of(judged: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    """One object an item, for programs; never its text."""
    for one in judged:
        line: dict[str, Any] = {"file": one.item.file, "line": one.item.line}
        if one.skipped:
            yield line | {"skipped": one.skipped}
            continue
        if one.prompt is not None:
            line["prompt"] = {
                "label": one.item.prompt_risk,
                "risk_level": str(one.prompt.level),
                "score": _round(1.0 - one.prompt.levels[0]),
                "category": None if one.prompt.level is RiskLevel.SAFE else str(one.prompt.category),
            }
        if one.answer is not None:
            line["answer"] = {"label": one.item.answer_risk} | _answer_dict(one.answer)
        yield line


def _answer_dict(answer: Answer) -> dict[str, Any]:
    flag = answer.flag
    span = answer.span
    return {
        "risk_level": str(flag.level),
        "score": _round(pair_score(answer.harms)),
        "flagged_at": flag.at if flag.at >= 0 else None,  # a token of the answer
        "delay": delay_of(answer, flag),
        "span": None if span is None else [span.start - answer.start, span.end - answer.start],
        "levels": "".join(str(RISK_LEVELS[level])[0] for level in answer.levels),  # S, U, C: one a token
    }


def _dummy(name: str, flags: Sequence[bool], unsafe: Sequence[bool]) -> Scores:
    return Scores(name, dict.fromkeys(MODES, count(flags, unsafe)))


def _counts_dict(counts: Counts) -> dict[str, Any]:
    return {
        "f1": _round(counts.f1),
        "precision": _round(counts.precision),
        "recall": _round(counts.recall),
        "false_alarm_rate": _round(counts.false_alarm_rate),
        "hits": counts.hits,
        "alarms": counts.alarms,
        "misses": counts.misses,
        "passes": counts.passes,
    }


def _timing_dict(found: Timing) -> dict[str, Any]:
    return {
        "annotated": found.total,
        "exact_hit": _round(found.exact_hit),
        "ahead": _round(found.ahead),
        "within_32": _round(found.within(32)),
        "within_128": _round(found.within(128)),
        "stopped_128": _round(found.stopped),
        "missed": _round(found.missed),
        "bins": found.bins,
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
