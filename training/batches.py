"""Examples -> sequences of ids with a target for each token that is judged, in batches of like length."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor

from proxy.risk import PROMPT_CATEGORIES, RESPONSE_CATEGORIES, RISK_LEVELS, RiskLevel
from training.answers import NEUTRAL_PROMPTS, SYSTEM_PROMPTS
from training.examples import EVERYDAY_ALARM, Example, Stretch
from training.passages import passage
from training.teacher import Opinions
from training.vocabulary import ANSWER_FRAME, byte_lengths, encode, turn

IGNORED = -100
MAX_PROMPT = 200  # tokens; of a longer prompt its start and end are kept
LIMITS = (96, 224, 1_600)  # tokens of an answer
LIMIT_CHANCES = (0.8, 0.185, 0.015)  # most are cut short for speed; a few teach the length of real answers
LEADS = (2, 3, 4, 5)  # harmless passages before the longest
LEAD_CHARACTERS = 1_100
LEAD_SHARE = 2  # characters of a short lead for each token of the limit: half of it stays for the turn
LONGEST_TURN = 800  # characters behind them
RAMP = 10  # tokens until an unsafe answer's label counts in full: its first words may be harmless
BATCH_TOKENS = 4_096
# Of the aim at a prompt: the teacher's share beside its label's, and the weight of its opinion where there is no label.
TEACHER_SHARE = 0.5
# Of the aim at an answer: the baseline's share beside its label's.
BASELINE_SHARE = 0.3
UNLABELLED_WEIGHT = 0.7
# A token's target: position, class of risk, class of category, weight, what a false alarm adds.
Target = tuple[int, int, int, float, float]


@dataclass(slots=True)
class Sequence:
    """Ids, and for each position a class of risk and of category for one of the two kinds of heads."""

    ids: list[int] = field(default_factory=list)
    query: list[Target] = field(default_factory=list)
    reply: list[Target] = field(default_factory=list)
    weight: float = 1.0  # of the verdict on the whole answer
    aim: tuple[float, ...] = ()  # the chances of the risk levels that `query` should come to
    reply_aims: list[tuple[float, ...]] = field(default_factory=list)  # the same for each of `reply`
    verdict: float = 0.0  # the chance that the verdict on the answer should come to


def _class_of(risk: RiskLevel) -> int:
    return RISK_LEVELS.index(risk)


def _blend(risk: RiskLevel, opinion: tuple[float, ...] | None, share: float) -> tuple[float, ...]:
    label = tuple(float(level is risk) for level in RISK_LEVELS)
    if opinion is None:
        return label
    return tuple(own + share * (other - own) for own, other in zip(label, opinion, strict=True))


def _ends(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else ids[: limit // 2] + ids[-(limit - limit // 2) :]


class Mixer:
    """Draws each example in one of the forms a conversation takes, so that verdicts depend on its text alone."""

    def __init__(
        self,
        examples: list[Example],
        rng: random.Random,
        opinions: Opinions | None = None,
        answers: Opinions | None = None,
    ) -> None:
        self._rng = rng
        self._opinions = opinions or {}
        self._answers = answers or {}
        self._safe = [e for e in examples if e.answer_risk is RiskLevel.SAFE and e.prompt_risk is RiskLevel.SAFE]
        self._refused = [e for e in examples if e.answer_risk is RiskLevel.SAFE and e.prompt_risk is RiskLevel.UNSAFE]

    def sequence(self, example: Example) -> Sequence:
        sequence = Sequence(weight=example.weight)
        if self._rng.random() < 0.15:
            sequence.ids += turn("system", self._rng.choice(SYSTEM_PROMPTS))
        if self._rng.random() < 0.07:
            self._add_past(sequence)
        self._add_prompt(sequence, example)
        if example.answer:
            self._add_answer(sequence, example)
        return sequence

    def _add_past(self, sequence: Sequence) -> None:
        """Earlier turns, a refused request among them: they must not colour what comes after."""
        is_refused = self._refused and self._rng.random() < 0.2
        for example in self._rng.choices(self._refused if is_refused else self._safe, k=self._rng.choice((1, 1, 2))):
            sequence.ids += turn("user", example.prompt[:300])
            sequence.ids += turn("assistant", example.answer_text[:320])

    def _add_prompt(self, sequence: Sequence, example: Example) -> None:
        prompt, risk = example.prompt, example.prompt_risk
        if example.answer and self._rng.random() < 0.3:
            prompt, risk = self._rng.choice(NEUTRAL_PROMPTS), RiskLevel.SAFE
        is_casual = prompt is example.prompt and self._rng.random() < 0.12
        ids = turn("user", prompt.lower().rstrip(".?!") if is_casual else prompt)
        sequence.ids += [*_ends(ids[:-2], MAX_PROMPT), *ids[-2:]]
        self._add_query(sequence, example, risk, self._opinions.get(prompt))

    @staticmethod
    def _add_query(
        sequence: Sequence, example: Example, risk: RiskLevel | None, opinion: tuple[float, ...] | None
    ) -> None:
        """What is asked of the token that closes the prompt: its label, the teacher's opinion of it, or both."""
        at = len(sequence.ids) - 2
        if risk is not None:
            category = example.prompt_category if risk is not RiskLevel.SAFE else None
            label = PROMPT_CATEGORIES.index(category) if category else IGNORED
            sequence.query.append((at, _class_of(risk), label, example.weight, example.alarm))
            sequence.aim = _blend(risk, opinion, TEACHER_SHARE)
        elif opinion is not None:
            sequence.query.append((at, opinion.index(max(opinion)), IGNORED, UNLABELLED_WEIGHT, 0.0))
            sequence.aim = opinion

    def _add_answer(self, sequence: Sequence, example: Example) -> None:
        sequence.ids += ANSWER_FRAME
        limit = self._rng.choices(LIMITS, LIMIT_CHANCES)[0]
        stretches = self._stretches(example, limit)
        # Encoded as one text: a seam between stretches must not show in the ids.
        ids = encode("".join(stretch.text for stretch in stretches))[:limit]
        borders = list(accumulate(len(stretch.text.encode()) for stretch in stretches))
        index, age = 0, 0
        # What is said of the whole holds for its last stretch.
        opinion = self._answers.get(stretches[-1].text) if stretches[-1] is example.answer[-1] else None
        aims = [_blend(stretch.risk, None, 0) for stretch in stretches[:-1]]
        aims.append(_blend(stretches[-1].risk, opinion, BASELINE_SHARE))
        for token, end in zip(ids, accumulate(byte_lengths()[token] for token in ids), strict=True):
            age += 1
            while end > borders[index] and index < len(borders) - 1:
                index, age = index + 1, 1
            # What comes before a turn is harmless by itself: a false alarm there counts in full.
            alarm = example.alarm if index == len(stretches) - 1 else EVERYDAY_ALARM
            self._label(sequence, stretches[index], age, example.weight, alarm)
            sequence.reply_aims.append(aims[index])
            sequence.ids.append(token)
            sequence.verdict = max(sequence.verdict, aims[index][_class_of(RiskLevel.UNSAFE)])

    def _stretches(self, example: Example, limit: int) -> tuple[Stretch, ...]:
        """The answer, now and then behind a harmless one, so that the model learns where an answer turns."""
        chance = 0.3 if example.answer_risk is not RiskLevel.SAFE else 0.1
        if limit == LIMITS[-1]:
            leads = tuple(self._lead(LEAD_CHARACTERS) for _ in range(self._rng.choice(LEADS)))
            ends = [replace(stretch, text=stretch.text[:LONGEST_TURN]) for stretch in example.answer]
            return (*leads, *ends)
        if self._rng.random() < chance:
            return (self._lead(self._rng.randint(40, limit * LEAD_SHARE)), *example.answer)
        if example.answer_risk is RiskLevel.SAFE and example.alarm and self._rng.random() < 0.4:
            return (self._part(example.answer_text),)
        return example.answer

    def _part(self, answer: str) -> Stretch:
        """A harmless answer from one of its sentences on, or a few of its sentences alone."""
        if self._rng.random() < 0.5:
            return Stretch(passage(self._rng, answer), RiskLevel.SAFE)
        start = answer.find(" ", self._rng.randrange(max(1, len(answer) - 200))) + 1
        return Stretch(answer[start:], RiskLevel.SAFE)

    def _lead(self, length: int) -> Stretch:
        text = self._rng.choice(self._safe).answer_text[:length]
        return Stretch(text.rsplit(" ", 1)[0] + self._rng.choice((" ", "\n\n", ". ")), RiskLevel.SAFE)

    @staticmethod
    def _label(sequence: Sequence, stretch: Stretch, age: int, weight: float, alarm: float) -> None:
        """The label of the next token, the `age`-th of its stretch."""
        category = RESPONSE_CATEGORIES.index(stretch.category) if stretch.category in RESPONSE_CATEGORIES else IGNORED
        is_gradual = stretch.risk is not RiskLevel.SAFE and not stretch.is_short
        ramp = min(1.0, age / RAMP) if is_gradual else 1.0
        sequence.reply.append((len(sequence.ids), _class_of(stretch.risk), category, weight * ramp, alarm))


@dataclass(slots=True)
class Batch:
    ids: Tensor  # (sequences, longest)
    query_at: Tensor  # flat positions of the judged prompt tokens
    query: Tensor  # (n, 4): risk, category, weight, alarm
    aims: Tensor  # (n, 3): chances of the risk levels
    reply_at: Tensor
    reply: Tensor
    reply_aims: Tensor  # (n, 3): chances of the risk levels
    verdicts: Tensor  # (sequences,): the chance of Unsafe that the answer should come to
    weights: Tensor  # (sequences,): of the verdict on the whole answer; 0 without one
    longest: int


def batches(sequences: list[Sequence], rng: random.Random, tokens: int = BATCH_TOKENS) -> Iterator[Batch]:
    """Sequences of like length together; the order of the batches is random."""
    ordered = sorted(sequences, key=lambda s: len(s.ids) + rng.random() * 8)
    groups: list[list[Sequence]] = [[]]
    for sequence in ordered:
        if groups[-1] and (len(groups[-1]) + 1) * len(sequence.ids) > tokens:
            groups.append([])
        groups[-1].append(sequence)
    rng.shuffle(groups)
    for group in groups:
        yield collate(group)


def collate(group: list[Sequence]) -> Batch:
    longest = max(len(sequence.ids) for sequence in group)
    ids = torch.zeros(len(group), longest, dtype=torch.long)
    query_at, query, reply_at, reply = [], [], [], []
    for row, sequence in enumerate(group):
        ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
        for position, *target in sequence.query:
            query_at.append(row * longest + position)
            query.append(target)
        # A long answer counts more than a short one, but not in proportion.
        share = max(1, len(sequence.reply)) ** -0.5
        for position, risk, category, weight, alarm in sequence.reply:
            reply_at.append(row * longest + position)
            reply.append((risk, category, weight * share, alarm))
    weights = torch.tensor([sequence.weight if sequence.reply else 0.0 for sequence in group])
    return Batch(ids, torch.tensor(query_at, dtype=torch.long), torch.tensor(query).reshape(-1, 4),
                 torch.tensor([sequence.aim for sequence in group if sequence.query]).reshape(-1, len(RISK_LEVELS)),
                 torch.tensor(reply_at, dtype=torch.long), torch.tensor(reply).reshape(-1, 4),
                 torch.tensor([aim for sequence in group for aim in sequence.reply_aims]).reshape(-1, len(RISK_LEVELS)),
                 torch.tensor([sequence.verdict for sequence in group]), weights, longest)  # fmt: skip
