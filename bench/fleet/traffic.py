"""What is offered: streams with a prompt, an answer and a rate, that come at random. By one seed.

The mix is an assumption. Prompts of 16 to 8,000 tokens, half of them above 800; answers of 8 to 2,000, half above 200,
at 30 to 60 tokens a second; the first token 0.3 to 0.8 s after the prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from bench.fleet.model import Ints, Numbers
from proxy.benchmark.arrivals import RATES


@dataclass(frozen=True, slots=True)
class Mix:
    prompt: float = 800.0  # median tokens, of a lognormal distribution
    prompt_spread: float = 0.9
    prompts: tuple[int, int] = (16, 8000)
    answer: float = 200.0
    answer_spread: float = 0.8
    answers: tuple[int, int] = (8, 2000)
    first: tuple[float, float] = (0.3, 0.8)  # seconds from the prompt to the first token
    turns: float = 0.0  # share of requests that go on with a conversation
    known: float = 0.8  # share of such a prompt that the turn before has had

    def prompt_tokens(self, dice: np.random.Generator, count: int) -> Ints:
        return _lognormal(dice, count, self.prompt, self.prompt_spread, self.prompts)

    def answer_tokens(self, dice: np.random.Generator, count: int) -> Ints:
        return _lognormal(dice, count, self.answer, self.answer_spread, self.answers)

    def mean_seconds(self) -> float:
        """How long a stream is open."""
        dice = np.random.default_rng(0)
        answers, rates = self.answer_tokens(dice, 100_000), dice.uniform(*RATES, 100_000)
        return float((answers / rates).mean()) + sum(self.first) / 2


MIX = Mix()


@dataclass(slots=True)
class Offer:
    """Streams in the order in which they come; an array of each field."""

    opened: Numbers  # when its prompt comes
    first: Numbers  # when its first token does
    rate: Numbers  # tokens a second
    prompt: Ints  # tokens
    answer: Ints
    known: Ints  # of the prompt, that its conversation's engine may still hold
    home: Ints  # its conversation's number, or the engine that must have it
    read: Ints  # answer tokens that were judged before it all began, the prompt with them; -1: nothing was

    def __len__(self) -> int:
        return len(self.opened)

    def arrival(self, stream: Ints, token: Ints) -> Numbers:
        """When an answer's token, from 0, comes."""
        arrived: Numbers = self.first[stream] + token / self.rate[stream]
        return arrived


def joined(*several: Offer) -> Offer:
    parts = [np.concatenate([getattr(one, field.name) for one in several]) for field in fields(Offer)]
    order = np.argsort(parts[0], kind="stable")
    return Offer(*(part[order] for part in parts))


def arriving(
    mix: Mix, dice: np.random.Generator, rate: float, until: float, shape: Callable[[Numbers], Numbers] | None = None
) -> Offer:
    """Poisson arrivals, `rate` a second from 0 on; `shape` says by how much more at a time, at most `PEAK` times."""
    count = dice.poisson(rate * until * (PEAK if shape is not None else 1.0))
    opened = np.sort(dice.uniform(0.0, until, count))
    if shape is not None:
        opened = opened[dice.uniform(0.0, PEAK, count) < shape(opened)]
    return _new(mix, dice, opened)


PEAK = 4.0


def _new(mix: Mix, dice: np.random.Generator, opened: Numbers) -> Offer:
    count = len(opened)
    prompt = mix.prompt_tokens(dice, count)
    known = np.where(dice.random(count) < mix.turns, prompt * mix.known, 0).astype(np.int64)
    first = opened + dice.uniform(*mix.first, count)
    home = dice.integers(0, 1 << 40, count)
    rates, answers = dice.uniform(*RATES, count), mix.answer_tokens(dice, count)
    return Offer(opened, first, rates, prompt, answers, known, home, np.full(count, -1))


def standing(mix: Mix, dice: np.random.Generator, count: int) -> Offer:
    """Streams that are somewhere in their answers at 0; a long one is more likely to be found than a short one."""
    pool = mix.answer_tokens(dice, 8 * count + 64)
    answers = dice.choice(pool, count, p=pool / pool.sum())
    read = (answers * dice.random(count)).astype(np.int64)
    rates = dice.uniform(*RATES, count)
    first = (dice.random(count) - read) / rates
    home = dice.integers(0, 1 << 40, count)
    zeros = np.zeros(count, np.int64)
    return Offer(np.zeros(count), first, rates, mix.prompt_tokens(dice, count), answers, zeros, home, read)


def steady(dice: np.random.Generator, homes: Ints, context: int, seconds: float) -> Offer:
    """The protocol of `weir bench guard`: one stream for each of `homes`, all with one context, none that ends."""
    count = len(homes)
    rates, starts = dice.uniform(*RATES, count), dice.uniform(0.0, 1.0, count)
    answers = np.maximum(1, np.ceil((seconds - starts) * rates)).astype(np.int64)
    zeros = np.zeros(count, np.int64)
    return Offer(np.zeros(count), starts, rates, np.full(count, context), answers, zeros, homes, zeros)


def _lognormal(dice: np.random.Generator, count: int, median: float, spread: float, bounds: tuple[int, int]) -> Ints:
    return np.clip(dice.lognormal(np.log(median), spread, count), *bounds).astype(np.int64)
