"""Authored requests: for each category, unsafe ones and benign twins that share their words."""

import tomllib
from pathlib import Path

from proxy.risk import Category

_TEXTS = tomllib.loads((Path(__file__).parent / "texts" / "requests.toml").read_text(encoding="utf-8"))

UNSAFE_PHRASES: dict[Category, list[str]] = {Category(name): texts for name, texts in _TEXTS["unsafe_phrases"].items()}
UNSAFE_SENTENCES: dict[Category, list[str]] = {
    Category(name): texts for name, texts in _TEXTS["unsafe_sentences"].items()
}
BENIGN_PHRASES: list[str] = _TEXTS["benign_phrases"]
BENIGN_SENTENCES: list[str] = _TEXTS["benign_sentences"]
