"""Numbers that are not finite never become a verdict, wherever they arise; and no id of the vocabulary makes them."""

import os
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from proxy.guard.loader import load_guard
from proxy.guard.model import GuardModel, Heads
from proxy.guard.protocol import GuardFault
from proxy.guard.rows import row_bytes
from proxy.guard.runner import Runner
from proxy.risk import Role
from tests.guard.checkpoints import random_ids
from tests.guard.driver import Driver, Same, Small, distance

IS_LONG = "WEIR_LONG" in os.environ
CONTROL_TOKENS = 151_669  # the vocabulary with its control tokens; the ids after it are unused
BAD = [float("nan"), float("inf"), float("-inf")]
ROWS = {"Safe": 0, "Unsafe": 1, "Controversial": 2, "first category": 3, "last category": -1}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


class BadLogit(Same):
    """One logit of one role's heads is overwritten wherever the marked hidden state is read."""

    def __init__(self, model: GuardModel, row: int, value: float, heads: Heads) -> None:
        super().__init__(model)
        self.row, self.value, self.bad = row, value, heads

    def logits(self, hidden: Tensor, heads: Heads) -> Tensor:
        logits = super().logits(hidden, heads).clone()
        if heads is self.bad:
            logits[0, self.row] = self.value
        return logits


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_one_bad_logit_is_a_fault_of_its_stream_and_never_safe(small: Small, row: int, value: float) -> None:
    model = small.loaded.model
    driver = Driver(BadLogit(model, row, value, model.response), 1 << 16)
    streams = [driver.open(random_ids(20, seed))[0] for seed in range(3)]
    driver.run()
    tickets = [driver.feed(stream, 20, [1]) for stream in streams]
    driver.run()
    errors = [driver.answers[ticket].error for ticket in tickets]
    assert sum(isinstance(error, GuardFault) for error in errors) == 1  # the packed batch's first row
    assert sum(error is None for error in errors) == 2


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_one_bad_logit_of_the_prompts_heads_is_a_fault(small: Small, row: int, value: float) -> None:
    model = small.loaded.model
    driver = Driver(BadLogit(model, row, value, model.prompt), 1 << 16)
    _, ticket = driver.open(random_ids(20), read=[19])
    driver.run()
    assert isinstance(driver.answers[ticket].error, GuardFault)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("part", ["qkv", "output", "gate_up", "down", "final_norm", "pre", "norm", "head"])
def test_one_bad_weight_anywhere_is_a_fault(small: Small, part: str, value: float) -> None:
    driver = Driver(spoiled(small.loaded.model, part, value), 1 << 16)
    stream, _ = driver.open(random_ids(20))
    driver.run()
    ticket = driver.feed(stream, 20, [1, 2, 3])
    driver.run()
    assert isinstance(driver.answers[ticket].error, GuardFault)


def spoiled(model: GuardModel, part: str, value: float) -> GuardModel:
    def with_bad(weight: Tensor) -> Tensor:
        weight = weight.clone()
        weight[0] = value  # a number of a vector, a row of a matrix
        return weight

    layers, final_norm, response = list(model.layers), model.final_norm, model.response
    if part == "final_norm":
        final_norm = with_bad(final_norm)
    elif part in ("pre", "norm"):
        response = replace(response, **{part: with_bad(getattr(response, part))})
    elif part == "head":
        response = replace(response, output=with_bad(response.output))
    else:
        layers[0] = replace(layers[0], **{part: with_bad(getattr(layers[0], part))})
    return GuardModel(model.architecture, model.embedding, layers, final_norm, response, model.prompt)


def test_a_past_that_is_not_finite_is_a_fault_for_later_tokens(small: Small) -> None:
    """Memory that went bad after it was computed: a flipped bit, a wild write."""
    driver = small.engine()
    ids = random_ids(60)
    streams = [driver.open(ids[:50])[0] for _ in range(2)]
    driver.run()
    runner = driver.engine._runner
    assert isinstance(runner, Runner)
    with torch.inference_mode():
        for slab in runner._slabs.values():
            slab.memory[:, 1, 0, :, 10] = float("nan")  # the values of the first slot's 11th token
    tickets = [driver.feed(stream, 50, ids[50:]) for stream in streams]
    driver.run()
    assert isinstance(driver.answers[tickets[0]].error, GuardFault)
    # It is computed anew, and the neighbour in the same slab never noticed.
    expected = small.reference.rows(ids)[50:]
    assert distance(driver.rows(tickets[1]), expected) < 1e-5
    assert distance(driver.rows(driver.feed(streams[0], 50, ids[50:])), expected) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"] if IS_LONG else ["float32"])
def test_every_id_of_the_vocabulary_is_judged_and_finite(dtype: str) -> None:
    """In a short run: every eighth stretch of ids, the first ones and the control tokens among them."""
    model = load_guard("embedded", dtype=dtype).model
    driver = Driver(model, 1 << 16)
    vocabulary = model.architecture.vocabulary
    assert vocabulary >= CONTROL_TOKENS
    stretches = list(pairwise([*range(0, vocabulary, 512), vocabulary]))
    for low, high in stretches if IS_LONG else {*stretches[::8], *stretches[-2:]}:
        # Read as a prompt; an answer's heads read the same hidden states.
        stream, ticket = driver.open(list(range(low, high)), read=range(high - low))
        driver.run()
        outcome = driver.answers.pop(ticket)
        assert outcome.error is None, (low, high)
        assert len(outcome.rows) == (high - low) * row_bytes(Role.USER)
        driver.close(stream)
