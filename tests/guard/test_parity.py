"""Verdicts do not depend on who else is in the batch. WEIR_LONG=1: all 10,000 replies, with the table."""

import os

import numpy as np

from proxy.policy import Mode
from tests.guard.parity import SHARE, Result, quick_trigger, table, tell, trigger
from tests.guard.replies import replies

IS_LONG = "WEIR_LONG" in os.environ
REPLIES = 10_000 if IS_LONG else 20
# Rounding to 8 bits moves verdicts that were close: of 10,000 replies 58 beside float32, 14 from batch to batch.
ROUNDED_SHARE, ROUNDED_BATCH_SHARE = 0.99, 0.998


def test_a_reply_has_one_trigger_however_it_is_judged() -> None:
    seen: list[Result] = []
    for result in table(REPLIES):
        seen.append(result)
        if IS_LONG:
            tell(result)
        is_rounded = "bfloat16" in result.way
        least = (ROUNDED_BATCH_SHARE if "beside" in result.way else ROUNDED_SHARE) if is_rounded else SHARE
        assert result.share >= (least if IS_LONG else 1.0 if least == SHARE else 0.9), result
        assert result.largest < (0.05 if is_rounded else 1e-4)
    assert {result.replies for result in seen} == {REPLIES, REPLIES // 5}
    assert all(result.flagged for result in seen)
    assert any(result.evictions for result in seen)


def test_both_ways_to_find_a_trigger_agree() -> None:
    dice = np.random.default_rng(0)
    for _ in range(300):
        levels = dice.dirichlet([0.3] * 3, size=12).astype(np.float32)
        for mode in Mode:
            assert trigger(levels, mode) == quick_trigger(levels, mode)


def test_replies_are_the_same_for_a_seed_and_of_many_kinds() -> None:
    one = replies(200, seed=1)
    assert one == replies(200, seed=1) != replies(200, seed=2)
    assert len({tuple(reply.answer) for reply in one}) > 150
    assert all(7 < len(reply.answer) <= 160 for reply in one)
