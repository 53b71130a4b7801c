"""The same replies judged in many ways: alone and in batches, whole and in pieces, evicted, forked, other numbers.

python -m tests.guard.parity 10000        # the whole table; minutes
"""

import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from proxy.guard.limits import Limits
from proxy.guard.loader import load_guard
from proxy.guard.model import GuardModel
from proxy.guard.rows import LEVELS, row_bytes
from proxy.judge import Judge
from proxy.policy import Mode, Policy
from proxy.risk import RISK_LEVELS, Risk, RiskLevel, Role
from tests.guard.driver import Driver
from tests.guard.replies import Reply, replies

Levels = NDArray[np.float32]  # [tokens of the answer, 3]
STREAMS = 64  # at once
SHARE = 0.999  # of the replies, in every way
WHOLE, RAGGED, BY_TOKEN = "alone, whole", "64 streams, ragged", "alone, token by token"
WIDTH = row_bytes(Role.ASSISTANT) // 4


@dataclass(frozen=True, slots=True)
class Difference:
    """Two triggers of one reply, and the first token that the two sides see differently."""

    reply: int
    mode: Mode
    triggers: tuple[int | None, int | None]
    token: int
    probabilities: tuple[list[float], list[float]]


@dataclass(slots=True)
class Result:
    way: str
    replies: int = 0
    flagged: int = 0
    differences: list[Difference] = field(default_factory=list)
    largest: float = 0.0  # difference of two probabilities
    seconds: float = 0.0  # of this process's CPU
    batch: float = 0.0  # streams a step
    evictions: int = 0

    @property
    def share(self) -> float:
        """Of the replies whose trigger is the same in both modes."""
        return 1 - len({difference.reply for difference in self.differences}) / self.replies


def alone(driver: Driver, texts: list[Reply], chunk: int) -> Iterator[Levels]:
    """One stream after another, `chunk` tokens at a time."""
    for text in texts:
        stream, _ = driver.open(text.prompt)
        driver.run()
        parts = []
        for start in range(0, len(text.answer), chunk):
            ids = text.answer[start : start + chunk]
            ticket = driver.feed(stream, len(text.prompt) + start, ids)
            driver.run()
            parts.append(levels_of(driver, ticket))
        driver.close(stream)
        driver.answers.clear()
        yield np.concatenate(parts)


def together(
    driver: Driver, texts: list[Reply], sizes: list[int], *, forks: bool = False, seed: int = 0
) -> Iterator[Levels]:
    """Ragged chunks of up to 64 streams that come and go; the forks of one prompt go on beside each other."""
    dice = random.Random(seed)
    waiting = list(enumerate(texts))[::-1]
    active: dict[int, tuple[int, int, list[Levels]]] = {}  # reply -> its stream, tokens fed, levels
    parents: dict[tuple[int, ...], int] = {}
    done: dict[int, Levels] = {}
    while waiting or active:
        while waiting and len(active) < STREAMS and dice.random() < 0.9:
            number, text = waiting.pop()
            active[number] = (_open(driver, text, parents if forks else None), 0, [])
        tickets = {}
        for number in [number for number in active if dice.random() < 0.8]:
            text, (stream, at, _) = texts[number], active[number]
            ids = text.answer[at : at + dice.choice(sizes)]
            tickets[number] = (driver.feed(stream, len(text.prompt) + at, ids), at + len(ids))
        driver.run()
        for number, (ticket, at) in tickets.items():
            stream, _, parts = active[number]
            active[number] = (stream, at, [*parts, levels_of(driver, ticket)])
            if at == len(texts[number].answer):
                done[number] = np.concatenate(active.pop(number)[2])
                driver.close(stream)
        driver.answers.clear()
    yield from (done[number] for number in range(len(texts)))


def _open(driver: Driver, text: Reply, parents: dict[tuple[int, ...], int] | None) -> int:
    if parents is None:
        stream, _ = driver.open(text.prompt)
    else:
        key = tuple(text.prompt)
        if key not in parents:
            parents[key], _ = driver.open(text.prompt, owner="key")
        stream = driver.fork(parents[key], len(text.prompt))
    return stream


def levels_of(driver: Driver, ticket: int) -> Levels:
    outcome = driver.answers[ticket]
    assert outcome.error is None, outcome.error
    return np.frombuffer(outcome.rows, np.float32).reshape(-1, WIDTH)[:, :LEVELS].copy()


def trigger(levels: Levels, mode: Mode) -> int | None:
    """The token at which the proxy cuts: its own policy, over the frame's tokens too."""
    judge = Judge(Policy(mode=mode))
    for index, row in enumerate(levels.tolist()):
        probability = max(row)
        judge.judge(Risk(RISK_LEVELS[row.index(probability)], "Violent", probability, 1.0, (), ()))  # type: ignore[arg-type]
        if judge.is_flagged:
            return index
    return None


def quick_trigger(levels: Levels, mode: Mode) -> int | None:
    """The same, said shortly: the second of two neighbours of one level that counts."""
    counting = {RISK_LEVELS.index(RiskLevel.UNSAFE)}
    if mode is Mode.STRICT:
        counting.add(RISK_LEVELS.index(RiskLevel.CONTROVERSIAL))
    tops = levels.argmax(axis=1).tolist()
    pairs = enumerate(pairwise(tops), start=1)
    return next((at for at, (one, two) in pairs if one == two and one in counting), None)


def compare(result: Result, expected: list[Levels], found: list[Levels]) -> None:
    for number, (one, two) in enumerate(zip(expected, found, strict=True)):
        assert one.shape == two.shape
        result.replies += 1
        result.largest = max(result.largest, float(np.abs(one - two).max()))
        result.flagged += quick_trigger(two, Mode.STRICT) is not None
        differing = one.argmax(axis=1) != two.argmax(axis=1)
        if not differing.any():
            continue  # the same levels everywhere are the same triggers
        for mode in Mode:
            triggers = trigger(one, mode), trigger(two, mode)
            if triggers[0] != triggers[1]:
                token = int(differing.argmax())
                sides = one[token].tolist(), two[token].tolist()
                result.differences.append(Difference(number, mode, triggers, token, sides))


def ways(model: GuardModel, texts: list[Reply]) -> dict[str, Callable[[], tuple[Driver, Iterator[Levels]]]]:
    """Every way that must not change a verdict, by name."""
    small, ragged = [1, 1, 1, 2, 3, 5, 8, 20], [8, 20, 40]

    def wide(**options: bool) -> tuple[Driver, Iterator[Levels]]:
        driver = Driver(model, 1 << 17)
        return driver, together(driver, texts, small, **options)

    def evicted() -> tuple[Driver, Iterator[Levels]]:
        driver = Driver(model, 1536, Limits(idle_seconds=0.0))
        return driver, together(driver, texts, ragged, seed=1)

    def single(chunk: int) -> tuple[Driver, Iterator[Levels]]:
        driver = Driver(model, 1 << 17)
        return driver, alone(driver, texts, chunk)

    return {
        WHOLE: lambda: single(1 << 20),
        RAGGED: wide,
        "evicted and replayed": evicted,
        "forks of one prompt": lambda: wide(forks=True),
        BY_TOKEN: lambda: single(1),
    }


def measured(name: str, make: Callable[[], tuple[Driver, Iterator[Levels]]]) -> tuple[Result, list[Levels]]:
    started = time.process_time()
    driver, found = make()
    levels = list(found)
    result = Result(name, seconds=time.process_time() - started)
    metrics = driver.engine.metrics()
    result.evictions = metrics.evictions
    return result, levels


def table(count: int, seed: int = 0) -> Iterator[Result]:
    """All ways on one CPU, then other numbers and devices; the first is what the others are compared with."""
    texts = replies(count, seed)
    model = load_guard("embedded", dtype="float32").model
    made = ways(model, texts)
    first, expected = measured(WHOLE, made[WHOLE])
    compare(first, expected, expected)
    yield first
    for name in [name for name in made if name != WHOLE]:
        yield beside(expected, name, made[name])
    yield _with_two_threads(model, texts, expected)
    yield from _in_bfloat16(texts, expected)
    if torch.cuda.is_available():
        for dtype in ("float32", "bfloat16"):
            other = load_guard("embedded", dtype=dtype, device="cuda").model
            yield beside(expected, f"CUDA, {dtype}: {RAGGED}", ways(other, texts)[RAGGED])


def beside(expected: list[Levels], name: str, make: Callable[[], tuple[Driver, Iterator[Levels]]]) -> Result:
    result, found = measured(name, make)
    compare(result, expected, found)
    return result


def _in_bfloat16(texts: list[Reply], expected: list[Levels]) -> Iterator[Result]:
    """Rounding moves verdicts that were close; what it must not do is to make them depend on the batch."""
    made = ways(load_guard("embedded", dtype="bfloat16").model, texts)
    result, whole = measured(f"bfloat16: {WHOLE}", made[WHOLE])
    compare(result, expected, whole)
    yield result
    yield beside(whole, f"bfloat16 beside that: {RAGGED}", made[RAGGED])


def _with_two_threads(model: GuardModel, texts: list[Reply], expected: list[Levels]) -> Result:
    # Two threads wait for each other longer than these small sums take: a fifth of the texts is enough.
    some = len(texts) // 5
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        return beside(expected[:some], f"{RAGGED}, 2 threads", ways(model, texts[:some])[RAGGED])
    finally:
        torch.set_num_threads(threads)


def tell(result: Result) -> None:
    changed = len({difference.reply for difference in result.differences})
    print(
        f"{result.way:32} {result.replies:6} replies, {result.flagged:5} flagged, {changed:4} differ "
        f"({result.share:.4%} the same), largest difference {result.largest:.1e}, {result.evictions} evictions, "
        f"{result.seconds:.0f} s of CPU",
        flush=True,
    )
    for difference in result.differences:
        one, two = (" ".join(f"{p:.4f}" for p in side) for side in difference.probabilities)
        print(
            f"    reply {difference.reply}, {difference.mode}: trigger {difference.triggers[0]} -> "
            f"{difference.triggers[1]}; token {difference.token}: {one} | {two}",
            flush=True,
        )


if __name__ == "__main__":
    for row in table(int(sys.argv[1])):
        tell(row)
