"""Authored answers, prompts around them, and the lines in which an answer turns."""

import tomllib
from pathlib import Path

from proxy.risk import Category
from training.combinations import TEXTS
from training.requests import UNSAFE_PHRASES

_TEXTS = tomllib.loads((Path(__file__).parent / "texts" / "answers.toml").read_text(encoding="utf-8"))
GROUPS = TEXTS["groups"]

REFUSAL_OPENERS: list[str] = _TEXTS["refusal_openers"]
REFUSAL_REASONS: list[str] = _TEXTS["refusal_reasons"]
REFUSAL_OFFERS: list[str] = _TEXTS["refusal_offers"]
COMPLIANCE_OPENERS: list[str] = _TEXTS["compliance_openers"]
BENIGN_ANSWERS: list[str] = _TEXTS["benign_answers"]
TURNING_LINES: dict[Category, list[str]] = {Category(name): texts for name, texts in _TEXTS["turning_lines"].items()}
# (category, openers, what follows): lines by combination; slurs take the groups of the requests.
CROSSED_LINES: tuple[tuple[Category, list[str], list[str]], ...] = (
    (Category.VIOLENT, _TEXTS["threats"], _TEXTS["threatened"]),
    (Category.UNETHICAL, _TEXTS["insults"], _TEXTS["insulting"]),
    (Category.UNETHICAL, _TEXTS["slurs"], GROUPS),
    (Category.SELF_HARM, _TEXTS["urges"], _TEXTS["urged"]),
    *((category, _TEXTS["complied"], phrases) for category, phrases in UNSAFE_PHRASES.items() if phrases),
)
# The harmless twin of the last.
COMPLIED: list[str] = _TEXTS["complied"]
SYSTEM_PROMPTS: list[str] = _TEXTS["system_prompts"]
NEUTRAL_PROMPTS: list[str] = _TEXTS["neutral_prompts"]
CHINESE_SUBJECTS: list[str] = _TEXTS["chinese_subjects"]
CHINESE_REQUESTS: list[str] = _TEXTS["chinese_requests"]
CHINESE_ANSWERS: list[str] = _TEXTS["chinese_answers"]
