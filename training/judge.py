"""Verdicts of a guard by the published rules: the prompt at its last `<|im_end|>`, an answer token by token.

The prompt is Unsafe or Controversial as its row says. An answer is Unsafe when two consecutive tokens
are, else Controversial when two consecutive ones are. `loose` flags Unsafe, `strict` both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from training.examples import Example
from training.model import Guard
from training.vocabulary import ANSWER_FRAME, encode, turn

SAFE, UNSAFE, CONTROVERSIAL = 0, 1, 2
BATCH_TOKENS = 12_000
LONGEST = 2_000  # tokens of a prompt or an answer that are judged


@dataclass(frozen=True, slots=True)
class Reading:
    """The features that the two twins of heads see: one row for the prompt, one for each answer token."""

    query: Tensor
    reply: Tensor


def read(guard: Guard, examples: list[Example]) -> list[Reading]:
    """Run the backbone over every conversation, whole."""
    sequences = [_sequence(example) for example in examples]
    readings: list[Reading | None] = [None] * len(examples)
    for group in _groups([len(ids) for ids, _ in sequences]):
        longest = len(sequences[group[-1]][0])
        ids = torch.zeros(len(group), longest, dtype=torch.long)
        for row, index in enumerate(group):
            ids[row, : len(sequences[index][0])] = torch.tensor(sequences[index][0])
        with torch.inference_mode():
            hidden = guard.model(ids)
            for row, index in enumerate(group):
                tokens, end = sequences[index]
                query = guard.query_risk_level_category_layernorm(
                    guard.query_risk_level_category_pre(hidden[row, end : end + 1])
                )
                answer = hidden[row, end + 2 + len(ANSWER_FRAME) : len(tokens)]
                reply = guard.risk_level_category_layernorm(guard.risk_level_category_pre(answer))
                readings[index] = Reading(query, reply)
    return [reading for reading in readings if reading is not None]


def _sequence(example: Example) -> tuple[list[int], int]:
    """(ids, position of the `<|im_end|>` of the prompt)."""
    prompt = turn("user", example.prompt)
    prompt = [*prompt[: LONGEST - 2], *prompt[-2:]] if len(prompt) > LONGEST else prompt
    answer = [*ANSWER_FRAME, *encode(example.answer_text.lstrip("\n"))[:LONGEST]] if example.answer else []
    return [*prompt, *answer], len(prompt) - 2


def _groups(lengths: list[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) + 1) * lengths[index] > BATCH_TOKENS:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


@dataclass(frozen=True, slots=True)
class Verdict:
    """`level` by the published rule; `score` ranks examples by how unsafe they look (for the AUC)."""

    level: int
    score: float


def prompt_verdict(reading: Reading, head: Tensor) -> Verdict:
    chances = (reading.query @ head.T).softmax(-1)[0]
    return Verdict(int(chances.argmax()), float(1 - chances[SAFE]))


def answer_verdict(reading: Reading, head: Tensor) -> Verdict:
    logits = reading.reply @ head.T
    levels = logits.argmax(-1)
    scores = 1 - logits.softmax(-1)[:, SAFE]
    if len(levels) == 0:
        return Verdict(SAFE, 0.0)
    score = float(torch.minimum(scores[1:], scores[:-1]).max()) if len(levels) > 1 else float(scores[0]) / 2
    for level in (UNSAFE, CONTROVERSIAL):
        if bool(((levels[1:] == level) & (levels[:-1] == level)).any()):
            return Verdict(level, score)
    return Verdict(SAFE, score)


def first_flag(reading: Reading, head: Tensor) -> int | None:
    """The index of the answer token at which the second of two consecutive Unsafe tokens falls."""
    levels = (reading.reply @ head.T).argmax(-1) == UNSAFE
    both = (levels[1:] & levels[:-1]).nonzero()
    return int(both[0]) + 1 if len(both) else None
