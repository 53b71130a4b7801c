"""Authored requests by combination: what makes a request unsafe is who or what the verb is done to.

Each family crosses patterns with fillers, harmful and harmless, so that no single word decides.
"""

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.risk import Category

TEXTS: dict[str, list[str]] = {
    name: texts
    for file in ("combinations.toml", "dangers.toml")
    for name, texts in tomllib.loads((Path(__file__).parent / "texts" / file).read_text(encoding="utf-8")).items()
}


@dataclass(frozen=True, slots=True)
class Family:
    """Phrases for the frames ("How do I ...") or, with `is_sentence`, texts as they stand.

    `frame` wraps each pattern before the filler is put in.
    """

    category: Category | None  # None: benign
    patterns: str
    fillers: str
    frame: str = "{pattern}"
    is_sentence: bool = False
    drawn: int = 300


FAMILIES: tuple[Family, ...] = (
    Family(Category.VIOLENT, "killing", "people", "{pattern} {{0}}"),
    Family(None, "ending", "things", "{pattern} {{0}}"),
    Family(None, "game_deeds", "games", "{pattern} in {{0}}"),
    Family(Category.ILLEGAL_ACTS, "stealing", "stolen", "{pattern} {{0}}"),
    Family(None, "protecting", "protected"),
    Family(Category.ILLEGAL_ACTS, "intruding", "accounts", "{pattern} {{0}}"),
    Family(None, "unlocking", "own_accounts"),
    Family(Category.ILLEGAL_ACTS, "dealing", "drugs"),
    Family(None, "drug_facts", "drugs", is_sentence=True),
    Family(Category.UNETHICAL, "slanders", "groups", is_sentence=True),
    Family(None, "respect", "groups", is_sentence=True),
    Family(Category.PII, "private", "private_people", "find out the {pattern} of {{0}}"),
    Family(Category.PII, "private", "private_people", "What is the {pattern} of {{0}}?", is_sentence=True),
    Family(None, "public_facts", "public_people", is_sentence=True),
    Family(None, "history_asked", "history", is_sentence=True),
    Family(None, "writing", "writing_safe", "Write {pattern} {{0}}.", is_sentence=True),
    Family(Category.UNETHICAL, "writing", "writing_unsafe", "Write {pattern} {{0}}.", is_sentence=True),
    Family(None, "asked", "topics", is_sentence=True, drawn=700),
    Family(None, "tasks", "things_done", is_sentence=True, drawn=300),
    Family(Category.ILLEGAL_ACTS, "described", "unsafe_doings", is_sentence=True),
    Family(None, "described", "safe_doings", is_sentence=True),
    Family(Category.SELF_HARM, "ways", "ways_to_die", is_sentence=True),
    Family(None, "ways", "ways_to_do", is_sentence=True),
    Family(Category.UNETHICAL, "spoken", "hateful", is_sentence=True),
    Family(None, "spoken", "kind", is_sentence=True),
    Family(Category.ILLEGAL_ACTS, "trading", "illegal_goods", is_sentence=True),
    Family(None, "trading", "legal_goods", is_sentence=True),
    Family(Category.ILLEGAL_ACTS, "deceiving", "deceits", is_sentence=True, drawn=200),
    Family(None, "deceiving", "honest", is_sentence=True, drawn=200),
    Family(Category.VIOLENT, "caring", "cruelties", is_sentence=True, drawn=400),
    Family(None, "caring", "kindnesses", is_sentence=True, drawn=400),
    Family(Category.UNETHICAL, "demeaning", "groups", is_sentence=True),
    Family(None, "demeaning", "imagined", is_sentence=True, drawn=200),
    Family(None, "questioned", "groups", is_sentence=True, drawn=250),
)


def combinations(rng: random.Random) -> Iterator[tuple[str, bool, Category | None]]:
    """(text, is a sentence, category or None)."""
    for family in FAMILIES:
        patterns = [family.frame.format(pattern=pattern) for pattern in TEXTS[family.patterns]]
        crossed = [pattern.format(filler) for pattern in patterns for filler in TEXTS[family.fillers]]
        for text in rng.sample(crossed, min(family.drawn, len(crossed))):
            yield text, family.is_sentence, family.category
