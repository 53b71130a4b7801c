"""The data folder -> examples. Its rows are read here and nowhere else, and never copied."""

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy.risk import Category, RiskLevel
from training.authored import authored
from training.examples import EVERYDAY_ALARM, Example, Stretch
from training.overlap import Known
from training.passages import everyday_tasks
from training.probes import ALL_PROBES
from training.reframed import reframed
from training.topics import HELD_SOURCE, held_topics, topic_chats

CATEGORIES = {
    "Violent": Category.VIOLENT,
    "Sexual Content": Category.SEXUAL_CONTENT,
    "Suicide & Self-Harm": Category.SELF_HARM,
    "Politically Sensitive Topics": Category.POLITICAL,
    "PII": Category.PII,
    "Copyright Violation": Category.COPYRIGHT,
    "Non-violent Illegal Acts": Category.ILLEGAL_ACTS,
    "Unethical Acts": Category.UNETHICAL,
    "Jailbreak": Category.JAILBREAK,
}

# Sources left out: share-alike data.
DROPPED = ("dolly",)
# A source of everyday requests and answers that is not trained on at all: what it raises in false alarms is what a text
# of unknown origin raises. Of two others half is held out.
ALL_HELD_OUT = ("self-instruct",)
HALF_HELD_OUT = ("FastChat", "oasst1")
HELD_OUT_SHARE = 0.08
# Ordinary English chat: what the thresholds are taken from.
EVERYDAY_SOURCES = (
    *ALL_HELD_OUT,
    *HALF_HELD_OUT,
    "Taskmaster",
    "arena-hard",
    "GPTeacher",
    "GSM8K",
    "AISafetyLab",
    HELD_SOURCE,
)
# Prompts that only look unsafe: a false alarm on them counts as much.
HARMLESS_SOURCES = ("CyberSecEval", "authored")
# How often one pass sees a row of a source: templates and weak labels less, other languages a little.
SHARES = {
    "FastChat": 4.0,
    "oasst1": 3.0,
    "toxic_spans": 0.2,
    "authored everyday": 0.4,
    "authored topics": 0.6,
    "authored topics chinese": 1.0,
    "authored reframed": 0.6,
    "authored requests": 0.8,
    "GSM8K": 0.15,
    "GPTeacher": 0.8,
    "arena-hard": 1.0,
    "madlibs": 0.3,
    "Davidson": 0.35,
    "hh-rlhf": 0.5,
    "MultiJail/en": 1.0,
    "MultiJail/zh": 0.2,
    "MultiJail": 0.1,
    "CatQA/vietnamese": 0.1,
    "CatQA/chinese": 0.2,
    "AILuminate-demo/fr": 0.1,
    "Flames": 0.2,
    "COLD": 0.2,
    "AART": 0.35,
    "llm-adaptive-attacks": 0.6,
    "JailbreakBench/artifacts/prompt_with_random_search": 0.6,
}
WEIGHTS = {"hh-rlhf": 0.2, "AART": 0.6, "madlibs": 0.5}
# What chat templates of other models left behind in some answers.
LEFTOVERS = re.compile(r"<\|[a-z_]+\|>.*|(?<=[.?!])assistant\n\n.*", re.DOTALL)
LONGEST_CHARS = 4_000


def _of(table: dict[str, float], source: str) -> float:
    """The entry with the longest name that `source` starts with; 1 without one."""
    names = [name for name in table if source.startswith(name)]
    return table[max(names, key=len)] if names else 1.0


def share_of(source: str) -> float:
    return _of(SHARES, source)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def example_of(row: dict[str, Any]) -> Example:
    """One row of the data's files; a label that is missing stays None."""
    answer = LEFTOVERS.sub("", row["response"] or "").strip()[:LONGEST_CHARS]
    return Example(
        source=row["source"],
        prompt=(row["prompt"] or "").strip()[:LONGEST_CHARS],
        prompt_risk=RiskLevel(row["prompt_risk"]) if row["prompt_risk"] else None,
        prompt_category=CATEGORIES.get(row["prompt_category"]),
        answer=_stretches(answer, row) if answer and row["response_risk"] else (),
        weight=_of(WEIGHTS, row["source"]),
        alarm=EVERYDAY_ALARM if row["source"].startswith((*EVERYDAY_SOURCES, *HARMLESS_SOURCES)) else 0.0,
    )


def _stretches(answer: str, row: dict[str, Any]) -> tuple[Stretch, ...]:
    risk, category = RiskLevel(row["response_risk"]), CATEGORIES.get(row["response_category"])
    onset = row["spans"][0] if row.get("spans") else 0
    if onset and risk is not RiskLevel.SAFE:
        return Stretch(answer[:onset], RiskLevel.SAFE), Stretch(answer[onset:], risk, category, is_short=True)
    return (Stretch(answer, risk, category, is_short=bool(row.get("spans"))),)


def train_examples(folder: Path) -> list[Example]:
    rows = rows_of(folder / "train.jsonl.gz")
    return [example_of(row) for row in rows if not row["source"].startswith(DROPPED)]


def split(examples: list[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """(to train on, held out)."""
    rng = random.Random(seed)
    kept: list[Example] = []
    held: list[Example] = []
    for example in examples:
        share = _held_out_share(example.source)
        is_held = rng.random() < share
        (held if is_held else kept).append(example)
    return kept, held


def _held_out_share(source: str) -> float:
    if source.startswith(ALL_HELD_OUT):
        return 1.0
    return 0.5 if source.startswith(HALF_HELD_OUT) else HELD_OUT_SHARE


def everyday(examples: list[Example]) -> list[Example]:
    return [example for example in examples if example.source.startswith(EVERYDAY_SOURCES)]


EVERYDAY_TASKS = 5_000


def authored_examples(seed: int, folder: Path, kept: list[Example]) -> list[Example]:
    """Our own examples, less those that an evaluation set or a probe happens to hold too, or nearly.

    Passages are drawn from the harmless everyday answers in `kept`.
    """
    known = known_texts(folder)
    harmless = [e.answer_text for e in everyday(kept) if e.answer_risk is RiskLevel.SAFE]
    rng = random.Random(seed)
    examples = [
        *authored(rng),
        *everyday_tasks(rng, harmless, EVERYDAY_TASKS),
        *topic_chats(rng),
        *reframed(rng, kept),
    ]
    return [example for example in examples if not known.holds(example.prompt)]


def held_authored(seed: int, folder: Path) -> list[Example]:
    """Our own everyday chats of topics that are not trained on."""
    known = known_texts(folder)
    return [example for example in held_topics(random.Random(seed)) if not known.holds(example.prompt)]


def known_texts(folder: Path) -> Known:
    """The prompts of the evaluation sets and of the probes."""
    prompts = {row["prompt"] or "" for path in folder.glob("eval-*.jsonl.gz") for row in rows_of(path)}
    return Known(prompts | {probe.prompt for probe in ALL_PROBES})
