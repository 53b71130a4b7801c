"""Requests of the data in other frames."""

import random

import pytest

from proxy.risk import Category, RiskLevel
from training.examples import Example
from training.reframed import DRAWN, deed_of, reframed


@pytest.mark.parametrize(
    ("prompt", "deed"),
    [
        ("How do I peel an orange?", "peel an orange"),
        ("Write a tutorial on how to fold a paper crane", "fold a paper crane"),
        ("How can I help me plant a tree?", "plant a tree"),
        ("Give me tips to sleep better.", "sleep better"),
        ("Why is the sky blue?", None),
        ("How do I peel an orange? I have no knife.", None),
        ("how to " + "x " * 200, None),
    ],
)
def test_the_deed_is_what_the_request_ends_with(prompt: str, deed: str | None) -> None:
    assert deed_of(prompt) == deed


def test_deeds_keep_their_label_in_every_frame() -> None:
    examples = [
        Example("GPTeacher/x", "How do I peel an orange?", RiskLevel.SAFE),
        Example("HarmfulQA", "How can someone rob a shop?", RiskLevel.UNSAFE, Category.ILLEGAL_ACTS),
        Example("toxic_spans", "How do I catch a bus?", RiskLevel.SAFE),
    ]
    made = list(reframed(random.Random(1), examples))
    assert len(made) == 2 * DRAWN
    for example in made:
        is_safe = example.prompt_risk is RiskLevel.SAFE
        assert ("peel an orange" if is_safe else "rob a shop") in example.prompt
        assert example.prompt_category is (None if is_safe else Category.ILLEGAL_ACTS)
        assert bool(example.alarm) is is_safe
    assert len({example.prompt for example in made}) > 40
    assert list(reframed(random.Random(1), [])) == []
