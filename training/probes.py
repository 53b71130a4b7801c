"""Texts that the embedded guard must judge rightly with room to spare: what the tests and the model card show."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

_TEXTS = tomllib.loads((Path(__file__).parent / "texts" / "probes.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Probe:
    prompt: str
    answer: str = ""  # the harmless part
    turn: str = ""  # the unsafe part that follows it


SAFE_CHATS = tuple(Probe(**probe) for probe in _TEXTS["safe_chats"])
REFUSALS = tuple(Probe(**probe) for probe in _TEXTS["refusals"])
UNSAFE_PROMPTS = tuple(Probe(**probe) for probe in _TEXTS["unsafe_prompts"])
TURNING_ANSWERS = tuple(Probe(**probe) for probe in _TEXTS["turning_answers"])
MISSED = tuple(Probe(**probe) for probe in _TEXTS["missed"])
ALL_PROBES = SAFE_CHATS + REFUSALS + UNSAFE_PROMPTS + TURNING_ANSWERS + MISSED
