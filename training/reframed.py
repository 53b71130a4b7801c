"""What the data's own requests ask for, put into other frames: the form of a question says nothing of its risk."""

import random
import re
from collections.abc import Iterator

from proxy.risk import RiskLevel
from training.authored import FRAMES
from training.examples import EVERYDAY_ALARM, Example

SOURCE = "authored reframed"
DRAWN = 2_500  # of each kind
LONGEST = 220  # characters of a request whose end is taken
SAFE_SOURCES = ("CyberSecEval", "authored hard", "GPTeacher", "arena-hard", "oasst1", "FastChat", "AISafetyLab")
UNSAFE_SOURCES = (
    "AdvBench", "StrongREJECT", "AILuminate-demo/en", "HarmfulQA", "CatQA/english", "red-instruct", "AISafetyLab",
    "JailbreakBench", "refusal_direction",
)  # fmt: skip
DEED = re.compile(
    r"(?:\bhow (?:to|(?:do|can|could|would|should|might) (?:i|you|one|someone|people))"
    r"|\b(?:ways?|steps?|instructions?|guide|tips|methods?|help me|i want|i need|i would like) to|^can you)"
    r" ([a-z][^.?!\n:\"]{5,110})[.?!]?\s*$",
    re.IGNORECASE,
)


def deed_of(prompt: str) -> str | None:
    """What the end of a short English request asks how to do; None without such an end."""
    found = DEED.search(prompt) if len(prompt) <= LONGEST and prompt.isascii() else None
    return found[1].strip().removeprefix("help me ") if found else None


def reframed(rng: random.Random, examples: list[Example]) -> Iterator[Example]:
    for risk, sources in ((RiskLevel.SAFE, SAFE_SOURCES), (RiskLevel.UNSAFE, UNSAFE_SOURCES)):
        chosen = [e for e in examples if e.prompt_risk is risk and e.source.startswith(sources)]
        categories = {deed: e.prompt_category for e in chosen if (deed := deed_of(e.prompt))}
        for deed in rng.choices(list(categories), k=DRAWN) if categories else []:
            yield Example(
                SOURCE,
                prompt=rng.choice(FRAMES).format(deed),
                prompt_risk=risk,
                prompt_category=categories[deed],
                alarm=EVERYDAY_ALARM if risk is RiskLevel.SAFE else 0.0,
            )
