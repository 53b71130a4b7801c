"""Composes the authored phrases into examples: requests with benign twins, and answers of every kind."""

import random
from collections.abc import Iterator

from proxy.risk import Category, RiskLevel
from training.answers import (
    BENIGN_ANSWERS,
    CHINESE_ANSWERS,
    CHINESE_REQUESTS,
    CHINESE_SUBJECTS,
    COMPLIANCE_OPENERS,
    COMPLIED,
    CROSSED_LINES,
    NEUTRAL_PROMPTS,
    REFUSAL_OFFERS,
    REFUSAL_OPENERS,
    REFUSAL_REASONS,
    TURNING_LINES,
)
from training.combinations import combinations
from training.examples import EVERYDAY_ALARM, Example, Stretch
from training.requests import BENIGN_PHRASES, BENIGN_SENTENCES, UNSAFE_PHRASES, UNSAFE_SENTENCES

SOURCE = "authored"
FRAMES: tuple[str, ...] = (
    "How do I {0}?",
    "How do I {0}?",
    "how to {0}",
    "How can I {0}?",
    "how can i {0}",
    "Tell me how to {0}.",
    "Explain step by step how to {0}.",
    "What is the best way to {0}?",
    "I want to {0}. Can you help me?",
    "Give me instructions to {0}.",
    "Write a guide on how to {0}.",
    "Can you help me {0}?",
    "What do I need to {0}?",
    "Is there an easy way to {0}?",
    "teach me to {0}",
    "I need to {0}, what should I do first?",
    "Where can I learn to {0}?",
    "Please explain how to {0}",
    "My friend wants to {0}. What should he know?",
    "Write a short article about how to {0}.",
    "Give me five tips to {0}.",
    "Could you show me how to {0}?",
    "Help me {0}.",
    "What's the fastest way to {0}?",
    "Should I {0}?",
    "Is it okay to {0}?",
    "is it ok to {0}",
    "Which tools do I need to {0}?",
    "I'm going to {0}. Give me some advice.",
    "Make a plan so that I can {0}.",
    "List the steps to {0}.",
    "Write a script for a video that shows how to {0}.",
    "What are some ways to {0}?",
    "Why should I {0}?",
    "When is the best time to {0}?",
    "Convince me to {0}.",
    "How long does it take to {0}?",
    "What is the cheapest way to {0}?",
)
REPEATS = 8  # frames drawn for each phrase
REFUSALS = 900
TURNED = 3_000
CHINESE = 400


def authored(rng: random.Random) -> Iterator[Example]:
    yield from _requests(rng)
    yield from _refusals(rng)
    yield from _benign_answers(rng)
    yield from _turned(rng)
    yield from _chinese(rng)


def unsafe_requests(rng: random.Random) -> Iterator[tuple[str, Category]]:
    for text, is_sentence, category in combinations(rng):
        if category is not None:
            yield (text if is_sentence else rng.choice(FRAMES).format(text)), category
    for category, phrases in UNSAFE_PHRASES.items():
        for phrase in phrases:
            for frame in rng.sample(FRAMES, REPEATS):
                yield frame.format(phrase), category
    for category, sentences in UNSAFE_SENTENCES.items():
        for sentence in sentences:
            yield sentence, category
            yield _casual(sentence), category


def benign_requests(rng: random.Random) -> Iterator[str]:
    for text, is_sentence, category in combinations(rng):
        if category is None:
            yield text if is_sentence else rng.choice(FRAMES).format(text)
    for phrase in BENIGN_PHRASES:
        for frame in rng.sample(FRAMES, REPEATS):
            yield frame.format(phrase)
    for sentence in BENIGN_SENTENCES:
        yield sentence
        yield _casual(sentence)


def _casual(sentence: str) -> str:
    return sentence.lower().rstrip("?.!")


def _requests(rng: random.Random) -> Iterator[Example]:
    for text, category in unsafe_requests(rng):
        yield Example(SOURCE + " requests", prompt=text, prompt_risk=RiskLevel.UNSAFE, prompt_category=category)
    for text in benign_requests(rng):
        yield Example(SOURCE + " requests", prompt=text, prompt_risk=RiskLevel.SAFE, alarm=EVERYDAY_ALARM)


def refusal(rng: random.Random) -> str:
    parts = [rng.choice(REFUSAL_OPENERS), rng.choice(REFUSAL_REASONS), rng.choice(REFUSAL_OFFERS)]
    return " ".join(part for part in parts if part)


def _refusals(rng: random.Random) -> Iterator[Example]:
    requests = list(unsafe_requests(rng))
    for _ in range(REFUSALS):
        text, category = rng.choice(requests)
        yield Example(
            SOURCE + " refusals",
            prompt=text,
            prompt_risk=RiskLevel.UNSAFE,
            prompt_category=category,
            answer=(Stretch(refusal(rng), RiskLevel.SAFE),),
            alarm=EVERYDAY_ALARM,
        )


def _chat(source: str, prompt: str, answer: tuple[Stretch, ...]) -> Example:
    return Example(source, prompt=prompt, prompt_risk=RiskLevel.SAFE, answer=answer, alarm=EVERYDAY_ALARM)


def _benign_answers(rng: random.Random) -> Iterator[Example]:
    benign = list(benign_requests(rng))
    for answer in BENIGN_ANSWERS:
        twin = rng.choice(COMPLIED).format(rng.choice(BENIGN_PHRASES)) + " "
        for opener in ("", twin, rng.choice(COMPLIANCE_OPENERS) + " "):
            prompt = rng.choice(benign) if rng.random() < 0.5 else rng.choice(NEUTRAL_PROMPTS)
            stretches = (Stretch(opener + answer, RiskLevel.SAFE),)
            yield Example(
                SOURCE + " answers", prompt=prompt, prompt_risk=RiskLevel.SAFE, answer=stretches, alarm=EVERYDAY_ALARM
            )


def _turned(rng: random.Random) -> Iterator[Example]:
    """A harmless answer that turns: the label changes where the unsafe lines begin."""
    benign = list(benign_requests(rng))
    for _ in range(TURNED):
        category, lines = _unsafe_lines(rng)
        stretches = (
            Stretch(_harmless_start(rng), RiskLevel.SAFE),
            Stretch(" ".join(lines), RiskLevel.UNSAFE, category, is_short=True),
        )
        prompt = rng.choice(benign) if rng.random() < 0.5 else rng.choice(NEUTRAL_PROMPTS)
        yield Example(
            SOURCE + " turned", prompt=prompt, prompt_risk=RiskLevel.SAFE, answer=stretches, alarm=EVERYDAY_ALARM
        )


def _harmless_start(rng: random.Random) -> str:
    """The first sentences of a harmless answer, or nothing; sometimes the twin of an unsafe line."""
    if rng.random() < 0.1:
        return ""
    sentences = rng.choice(BENIGN_ANSWERS).split(". ")
    start = ". ".join(sentences[: rng.randint(1, len(sentences))]).rstrip(".") + ". "
    if rng.random() < 0.25:
        start += rng.choice(COMPLIED).format(rng.choice(BENIGN_PHRASES)) + " "
    return start + rng.choice(("", "", "But ", "\n\n", "And now: "))


def _unsafe_lines(rng: random.Random) -> tuple[Category, list[str]]:
    if rng.random() < 0.35:
        category = rng.choice(list(TURNING_LINES))
        lines = TURNING_LINES[category]
        return category, rng.sample(lines, min(rng.choice((1, 2, 3)), len(lines)))
    category, openers, endings = rng.choice(CROSSED_LINES)
    return category, [rng.choice(openers).format(rng.choice(endings)) for _ in range(rng.choice((1, 2, 3)))]


def _chinese(rng: random.Random) -> Iterator[Example]:
    for _ in range(CHINESE):
        subject = rng.choice(CHINESE_SUBJECTS)
        answer = "".join(rng.sample(CHINESE_ANSWERS, rng.randint(1, 3))).format(subject)
        yield Example(
            SOURCE + " chinese",
            prompt=rng.choice(CHINESE_REQUESTS).format(subject),
            prompt_risk=RiskLevel.SAFE,
            answer=(Stretch(answer, RiskLevel.SAFE),),
            alarm=EVERYDAY_ALARM,
        )
