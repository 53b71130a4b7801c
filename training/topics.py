"""Everyday chats by topics, in Chinese and English: requests, and answers put together from plain sentences.

Some topics are held out whole: what they raise in false alarms sets the decision boundary, beside the data's own.
"""

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from proxy.risk import RiskLevel
from training.examples import EVERYDAY_ALARM, Example, Stretch
from training.vocabulary import token_texts

SOURCE = "authored topics"
HELD_SOURCE = "authored held topics"
NUMBERS = {"chinese": 3_000, "english": 3_500}  # chats of each language
HELD = 300
SCRAMBLED = 0.3  # the share of Chinese texts in which some words give way to any others
WORDS_CHANGED = 0.35


@dataclass(frozen=True, slots=True)
class Topic:
    subjects: list[str]
    requests: list[str]
    sentences: list[str]


class Language:
    """The texts of one file under `texts`, and what is drawn from them."""

    def __init__(self, name: str, file: str) -> None:
        texts = tomllib.loads((Path(__file__).parent / "texts" / file).read_text(encoding="utf-8"))
        self.name = name
        self._texts: dict[str, list[str]] = {key: value for key, value in texts.items() if key != "topics"}
        topics = {held: [t for t in texts["topics"] if t.get("held", False) is held] for held in (False, True)}
        self._topics = {
            held: [Topic(t["subjects"], t["requests"], t["sentences"]) for t in group] for held, group in topics.items()
        }
        self._gap = "" if name == "chinese" else " "

    def chat(self, rng: random.Random, is_held: bool) -> tuple[str, str]:
        """(request, answer)."""
        topics = self._topics[is_held]
        topic = rng.choice(topics)
        if rng.random() < 0.25:
            text = self._joined(rng, topic, rng.choice((1, 1, 2, 3)))
            other = self._joined(rng, rng.choice(topics), rng.choice((1, 2)))
            return rng.choice(self._texts["over_text"]).format(text), other
        patterns = topic.requests if rng.random() < 0.6 else self._texts["instructions"]
        request = rng.choice(patterns).format(rng.choice(topic.subjects))
        return request, self._answer(rng, topic)

    def _answer(self, rng: random.Random, topic: Topic) -> str:
        if rng.random() < 0.12:
            return rng.choice(self._texts["short_answers"])
        opener = rng.choice(self._texts["openers"]) if rng.random() < 0.4 else ""
        closer = rng.choice(self._texts["closers"]) if rng.random() < 0.4 else ""
        return opener + self._joined(rng, topic, rng.choice((1, 2, 3, 4, 6, 8))) + self._gap * bool(closer) + closer

    def _joined(self, rng: random.Random, topic: Topic, count: int) -> str:
        sentences = rng.sample(topic.sentences, min(count, len(topic.sentences)))
        form = rng.random()
        if form < 0.6 or count == 1:
            return self._gap.join(sentences)
        if form < 0.8:
            return "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(sentences, 1))
        if form < 0.9:
            return "\n".join(f"- {sentence}" for sentence in sentences)
        return "\n\n".join(sentences)


LANGUAGES = (Language("chinese", "chinese.toml"), Language("english", "world.toml"))


def topic_chats(rng: random.Random) -> Iterator[Example]:
    """Chats of the topics that are trained on."""
    for language in LANGUAGES:
        for _ in range(NUMBERS[language.name]):
            request, answer = language.chat(rng, is_held=False)
            if language.name == "chinese" and rng.random() < SCRAMBLED:
                request, answer = scrambled(rng, request), scrambled(rng, answer)
            yield _example(f"{SOURCE} {language.name}", request, answer)


def held_topics(rng: random.Random) -> Iterator[Example]:
    """Chats of the topics that are held out, as they stand."""
    for language in LANGUAGES:
        for _ in range(HELD):
            yield _example(f"{HELD_SOURCE} {language.name}", *language.chat(rng, is_held=True))


def scrambled(rng: random.Random, text: str) -> str:
    """`text` with some Chinese characters replaced by words of the vocabulary, whichever: that they say nothing by
    themselves is all that the guard is to learn of words that the data does not hold.
    """
    words = chinese_words()
    return "".join(rng.choice(words) if is_chinese(char) and rng.random() < WORDS_CHANGED else char for char in text)


def is_chinese(char: str) -> bool:
    return "\u4e00" <= char <= "\u9fff"


@lru_cache(maxsize=1)
def chinese_words() -> list[str]:
    return [text for text in token_texts() if text and all(is_chinese(char) for char in text)]


def _example(source: str, prompt: str, answer: str) -> Example:
    stretches = (Stretch(answer, RiskLevel.SAFE),)
    return Example(source, prompt=prompt, prompt_risk=RiskLevel.SAFE, answer=stretches, alarm=EVERYDAY_ALARM)
