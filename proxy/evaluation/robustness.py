"""How a guard's verdicts stand when texts are written otherwise: what it detected, and what it let pass."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from proxy.evaluation.datasets import Item
from proxy.evaluation.metrics import FLAGS
from proxy.evaluation.run import STREAMS, Judged, judge_all
from proxy.evaluation.summary import ANSWERS, PROMPTS
from proxy.evaluation.transforms import TRANSFORMS, transformed
from proxy.folding import fold
from proxy.guard.protocol import Guard
from proxy.risk import RiskLevel

# Texts of each kind and label: every one is judged twice a transform, and most transforms make many tokens of a word.
SAMPLE = 50
SEED = 1


@dataclass(frozen=True, slots=True)
class Share:
    """Texts flagged as they stand, and there or in the folded view."""

    size: int
    plain: int
    folded: int


@dataclass(frozen=True, slots=True)
class Robustness:
    """One transform on texts of one kind. A guard that takes every disguise for harm has alarms, not detections."""

    kind: str
    transform: str
    unsafe: Share  # of unsafe texts that are flagged undisguised
    safe: Share  # of texts that are not unsafe, and not flagged undisguised

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Sample:
    """What is disguised: the texts of one kind that the guard judges rightly."""

    kind: str
    unsafe: tuple[Item, ...]
    safe: tuple[Item, ...]


def sample_of(judged: Sequence[Judged], kind: str, mode: str, most: int = SAMPLE) -> Sample:
    """At most so many unsafe and so many safe texts, the same ones each time."""

    def pick(*, unsafe: bool) -> tuple[Item, ...]:
        found = [
            _only(one.item, kind)
            for one in judged
            if not one.skipped
            and (risk := _label(one.item, kind)) is not None
            and (risk is RiskLevel.UNSAFE) == unsafe == is_flagged(one, kind, mode)
        ]
        return tuple(random.Random(SEED).sample(found, min(most, len(found))))

    return Sample(kind, pick(unsafe=True), pick(unsafe=False))


def is_flagged(judged: Judged, kind: str, mode: str) -> bool:
    if kind == ANSWERS:
        return judged.answer is not None and judged.answer.flag.level in FLAGS[mode]
    return judged.prompt is not None and judged.prompt.level in FLAGS[mode]


def _label(item: Item, kind: str) -> RiskLevel | None:
    return item.answer_risk if kind == ANSWERS else item.prompt_risk


def _only(item: Item, kind: str) -> Item:
    """The item without what is not looked at."""
    item = replace(item, token_span=None, character_span=None)
    if kind == ANSWERS:
        return item
    last = max(index for index, message in enumerate(item.messages) if message["role"] == "user")
    return replace(item, messages=item.messages[: last + 1], answer_risk=None)


def rewritten(item: Item, write: Callable[[str], str]) -> Item:
    """The last message, said otherwise."""
    last: Mapping[str, Any] = item.messages[-1]
    return replace(item, messages=(*item.messages[:-1], {**last, "content": write(last["content"])}))


def variants(items: Sequence[Item], name: str) -> list[Item]:
    """Each item transformed, and transformed and folded."""
    changed = [rewritten(item, lambda text: transformed(name, text)) for item in items]
    return changed + [rewritten(item, fold) for item in changed]


async def measure(
    sample: Sample,
    guard: Guard,
    mode: str,
    *,
    streams: int = STREAMS,
    on_judged: Callable[[Judged], None] = lambda judged: None,
) -> list[Robustness]:
    """A row a transform. Raises GuardError."""

    async def share(items: Sequence[Item], name: str) -> Share:
        judged = await judge_all(variants(items, name), guard, streams=streams, on_judged=on_judged)
        flags = [is_flagged(one, sample.kind, mode) for one in judged]
        plain, folded = flags[: len(items)], flags[len(items) :]
        either = [a or b for a, b in zip(plain, folded, strict=True)]
        return Share(len(items), sum(plain), sum(either))

    return [
        Robustness(sample.kind, name, await share(sample.unsafe, name), await share(sample.safe, name))
        for name in TRANSFORMS
    ]


def work(samples: Sequence[Sample]) -> int:
    """How many texts `measure` judges."""
    return 2 * len(TRANSFORMS) * sum(len(sample.unsafe) + len(sample.safe) for sample in samples)


KINDS = (PROMPTS, ANSWERS)
