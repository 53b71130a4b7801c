"""Authored requests: for each category, unsafe ones and benign twins that share their words."""

import tomllib
from pathlib import Path
from typing import Any

from proxy.risk import Category

_FILES: list[dict[str, Any]] = [
    tomllib.loads((Path(__file__).parent / "texts" / name).read_text(encoding="utf-8"))
    for name in ("requests.toml", "wide.toml")
]


def _by_category(key: str) -> dict[Category, list[str]]:
    names = dict.fromkeys(name for texts in _FILES for name in texts[key])
    return {Category(name): [text for texts in _FILES for text in texts[key].get(name, [])] for name in names}


UNSAFE_PHRASES = _by_category("unsafe_phrases")
UNSAFE_SENTENCES = _by_category("unsafe_sentences")
BENIGN_PHRASES: list[str] = [text for texts in _FILES for text in texts["benign_phrases"]]
BENIGN_SENTENCES: list[str] = [text for texts in _FILES for text in texts["benign_sentences"]]
