import pytest
import torch

from proxy.guard.int8 import Int8Matrix
from proxy.guard.loader import load_guard
from proxy.guard.model import GuardModel
from tests.guard.checkpoints import random_ids
from tests.guard.driver import Driver, distance
from training.probes import SAFE_CHATS, TURNING_ANSWERS
from training.vocabulary import ANSWER_FRAME, encode, turn


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_product_is_off_by_little_whatever_the_size_of_its_inputs() -> None:
    weight, bias = numbers(48, 64), numbers(48)
    matrix = Int8Matrix(weight)
    for scale in (1e-6, 1.0, 1e6):
        inputs = scale * numbers(7, 64, seed=1)
        exact = inputs @ weight.t()
        assert (matrix(inputs) - exact).abs().max() < 0.03 * exact.abs().max()
        assert torch.equal(matrix(inputs, bias), matrix(inputs) + bias)
    assert torch.equal(matrix(torch.zeros(2, 64)), torch.zeros(2, 48))


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    matrix = Int8Matrix(numbers(48, 64))
    inputs = numbers(9, 64, seed=1)
    inputs[3] *= 1000
    alone = torch.cat([matrix(row.unsqueeze(0)) for row in inputs])
    assert torch.equal(matrix(inputs), alone)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so_and_spoils_no_neighbour(wrong: float) -> None:
    matrix = Int8Matrix(numbers(48, 64))
    inputs = numbers(3, 64, seed=1)
    clean = matrix(inputs)
    inputs[1, 5] = wrong
    product = matrix(inputs)
    assert not torch.isfinite(product[1]).all()
    assert torch.equal(product[[0, 2]], clean[[0, 2]])


def rows_of(model: GuardModel, prompt: list[int], answer: list[int]) -> list[list[float]]:
    driver = Driver(model, 1 << 16)
    stream, _ = driver.open(prompt)
    return driver.rows(driver.feed(stream, len(prompt), answer))


def test_the_embedded_guard_says_nearly_the_same_in_8_bits() -> None:
    exact, rounded = load_guard().model, load_guard(dtype="int8").model
    same = total = 0
    for probe in (*SAFE_CHATS, *TURNING_ANSWERS):
        prompt, answer = turn("user", probe.prompt), [*ANSWER_FRAME, *encode(probe.answer + probe.turn)]
        one, other = rows_of(exact, prompt, answer), rows_of(rounded, prompt, answer)
        assert distance(one, other) > 0
        levels = [(a.index(max(a[:3])), b.index(max(b[:3]))) for a, b in zip(one, other, strict=True)]
        same += sum(a == b for a, b in levels)
        total += len(levels)
    assert same / total > 0.97


def test_a_batch_of_streams_gives_the_rows_of_each_alone() -> None:
    model = load_guard(dtype="int8").model
    texts = [random_ids(20, seed, vocabulary=100_000) for seed in range(6)]
    driver = Driver(model, 1 << 16)
    streams = [driver.open(text[:5])[0] for text in texts]
    driver.run()
    tickets = [driver.feed(stream, 5, text[5:]) for stream, text in zip(streams, texts, strict=True)]
    for ticket, text in zip(tickets, texts, strict=True):
        # What is left is float32's own rounding, at steps between two integers.
        assert distance(driver.rows(ticket), rows_of(model, text[:5], text[5:])) < 0.05
