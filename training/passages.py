"""Everyday tasks over passages of harmless answers: how wide the harmless world is, in short and long texts."""

import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from proxy.risk import RiskLevel
from training.examples import EVERYDAY_ALARM, Example, Stretch

_TEXTS: dict[str, list[str]] = tomllib.loads(
    (Path(__file__).parent / "texts" / "everyday.toml").read_text(encoding="utf-8")
)
OVER_TEXT = _TEXTS["over_text"]
INSTRUCTIONS = _TEXTS["instructions"]
SUBJECTS = _TEXTS["subjects"]
REQUESTS = _TEXTS["requests"]
SHORT_ANSWERS = _TEXTS["short_answers"]

SOURCE = "authored everyday"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
LONGEST_PASSAGE = 600  # characters


def passage(rng: random.Random, text: str, most: int = 3) -> str:
    """One to `most` sentences in a row, from anywhere in `text`, as they stand there."""
    borders = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    first = rng.randrange(len(borders) - 1)
    last = min(len(borders) - 1, first + rng.randint(1, most))
    return text[borders[first] : borders[last]].strip()[:LONGEST_PASSAGE]


def everyday_tasks(rng: random.Random, answers: list[str], count: int) -> Iterator[Example]:
    """Requests and answers, `count` of each kind; `answers` are harmless."""
    if not answers:
        return
    for _ in range(count):
        text = rng.choice(answers)
        yield _chat(rng.choice(OVER_TEXT).format(passage(rng, text)), passage(rng, text))
        request = rng.choice(INSTRUCTIONS).format(rng.choice(SUBJECTS))
        yield _chat(request, rng.choice(SHORT_ANSWERS) if rng.random() < 0.3 else passage(rng, text))
    for request in REQUESTS:
        yield _chat(request, rng.choice(SHORT_ANSWERS))
        yield _chat(request.lower().rstrip("?.!"), rng.choice(SHORT_ANSWERS))


def _chat(prompt: str, answer: str) -> Example:
    stretches = (Stretch(answer, RiskLevel.SAFE),) if answer else ()
    return Example(SOURCE, prompt=prompt, prompt_risk=RiskLevel.SAFE, answer=stretches, alarm=EVERYDAY_ALARM)
