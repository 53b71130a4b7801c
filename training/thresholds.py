"""Moves the heads' decision boundary until few enough held-out benign texts are flagged.

Qwen3Guard's heads have no bias, so a threshold cannot simply be added. But a direction `w` with
`w . x = 1` for nearly every feature row x acts as one: least squares finds it, and adding a multiple
of it to a class's row of the head shifts that class against the others. What is shipped stays an
ordinary head that is read by its softmax.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from training.data import ALL_HELD_OUT
from training.examples import Example
from training.judge import CONTROVERSIAL, SAFE, UNSAFE, Reading, Verdict, answer_verdict, prompt_verdict, read
from training.model import Guard
from training.topics import HELD_SOURCE

log = logging.getLogger("training")

# The share of held-out benign texts that may be flagged, of those of known sources and of those of unknown ones:
# three quarters of the 2 % and 1 % that are the aim.
PROMPT_ALARMS = {UNSAFE: 0.015, CONTROVERSIAL: 0.03}
ANSWER_ALARMS = {UNSAFE: 0.0075, CONTROVERSIAL: 0.02}
# Controversial is only ever made rarer: its share is a limit, not an aim.
SHIFTS = {UNSAFE: (-6.0, 6.0), CONTROVERSIAL: (-6.0, 0.0)}
BISECTIONS = 14

Judge = Callable[[Reading, Tensor], Verdict]


def calibrate(guard: Guard, benign_prompts: list[Example], benign_answers: list[Example]) -> None:
    """Shift both risk heads of `guard` in place, until neither kind of source raises more alarms than allowed."""
    prompts = _by_origin(guard, _distinct(benign_prompts, lambda e: e.prompt))
    answers = _by_origin(guard, _distinct(benign_answers, lambda e: e.answer_text))
    constant = _constant_direction(torch.cat([reading.query for group in prompts.values() for reading in group]))
    _shift(guard.query_risk_level_head.weight, constant, prompts, prompt_verdict, PROMPT_ALARMS, "prompts")
    constant = _constant_direction(torch.cat([reading.reply for group in answers.values() for reading in group]))
    _shift(guard.risk_level_head.weight, constant, answers, answer_verdict, ANSWER_ALARMS, "answers")


def _distinct(examples: list[Example], text: Callable[[Example], str]) -> list[Example]:
    """Each text once: one that is there five times of 300 would move the boundary alone."""
    return list({(e.source, text(e)): e for e in examples}.values())


def _by_origin(guard: Guard, examples: list[Example]) -> dict[str, list[Reading]]:
    """The readings of the sources that were partly trained on, of those that were not at all, and of our own topics
    that were held out, each language by itself.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        is_own = example.source.startswith(HELD_SOURCE)
        origin = example.source if is_own else "unknown" if example.source.startswith(ALL_HELD_OUT) else "known"
        groups.setdefault(origin, []).append(example)
    return {origin: read(guard, group) for origin, group in groups.items()}


def _constant_direction(features: Tensor) -> Tensor:
    ones = torch.ones(len(features), 1)
    ridge = 1e-3 * len(features) * torch.eye(features.shape[1])
    direction: Tensor = torch.linalg.solve(features.T @ features + ridge, features.T @ ones)[:, 0]
    spread = (features @ direction).std(correction=0)
    log.info("the constant direction: mean %.3f, spread %.3f", (features @ direction).mean(), spread)
    return direction


def _shift(
    head: Tensor, constant: Tensor, groups: dict[str, list[Reading]], judge: Judge, allowed: dict[int, float], name: str
) -> None:
    """Unsafe first; then Controversial, counted together with what is already Unsafe."""
    with torch.no_grad():
        for level, share in allowed.items():
            low, high = SHIFTS[level]
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                moved = _shifted(head, constant, level, middle)
                alarms = max(_alarms(moved, group, judge, level) for group in groups.values())
                low, high = (middle, high) if alarms <= share else (low, middle)
            head.copy_(_shifted(head, constant, level, low))
            found = {origin: round(100 * _alarms(head, group, judge, level), 2) for origin, group in groups.items()}
            log.info("%s: class %d shifted by %.2f for %.2f %% alarms: %s", name, level, low, 100 * share, found)


def _shifted(head: Tensor, constant: Tensor, level: int, amount: float) -> Tensor:
    moved = head.clone()
    moved[level] += amount * constant
    return moved


def _alarms(head: Tensor, readings: list[Reading], judge: Judge, level: int) -> float:
    worst = {UNSAFE: (UNSAFE,), CONTROVERSIAL: (UNSAFE, CONTROVERSIAL), SAFE: ()}[level]
    return sum(judge(reading, head).level in worst for reading in readings) / len(readings)
