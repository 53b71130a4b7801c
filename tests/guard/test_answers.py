from dataclasses import replace

import pytest
import torch

from proxy.guard.answers import read_answers
from proxy.guard.protocol import GuardFault
from proxy.guard.rows import read_rows, row_bytes
from proxy.guard.sequence import Chunk, Job, Sequence
from proxy.guard.slab import Placed
from proxy.risk import Role
from tests.guard.driver import Same, Small, distance, rows_of


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


def placed(first: int, count: int, reads: list[int], role: Role, start: int = 0) -> Placed:
    job = Job(first, start + count, reads, role, 0.0)
    return Placed(Chunk(Sequence(first, "", [], start), job, start, count, reads), 0, first, first)


def test_each_chunk_gets_its_own_rows_of_its_own_heads(small: Small) -> None:
    model = small.loaded.model
    hidden = torch.randn(9, model.architecture.hidden, generator=torch.Generator().manual_seed(1))
    chunks = [
        placed(0, 4, [3], Role.USER),
        placed(4, 2, [10, 11], Role.ASSISTANT, start=10),
        placed(6, 3, [2, 0], Role.USER),
    ]
    answers = read_answers(model, hidden, chunks)
    expected = {
        Role.USER: model.probabilities(hidden, model.prompt),
        Role.ASSISTANT: model.probabilities(hidden, model.response),
    }
    wanted = [(Role.USER, [3]), (Role.ASSISTANT, [4, 5]), (Role.USER, [8, 6])]
    for answer, (role, rows) in zip(answers, wanted, strict=True):
        assert isinstance(answer, bytes)
        assert len(answer) == len(rows) * row_bytes(role)
        assert distance(rows_of(read_rows(answer, len(rows), role)), expected[role][rows].tolist()) < 1e-6


def test_what_is_not_finite_is_a_fault_of_its_chunk_even_where_nothing_is_read(small: Small) -> None:
    for wrong in (float("nan"), float("inf"), -float("inf")):
        hidden = torch.ones(6, small.loaded.model.architecture.hidden)
        hidden[3, 0] = wrong
        chunks = [placed(0, 2, [1], Role.USER), placed(2, 2, [], Role.USER), placed(4, 2, [0, 1], Role.ASSISTANT)]
        first, second, third = read_answers(small.loaded.model, hidden, chunks)
        assert isinstance(first, bytes)
        assert isinstance(second, GuardFault)
        assert isinstance(third, bytes)


def test_heads_whose_numbers_are_not_finite_are_a_fault(small: Small) -> None:
    model = Same(small.loaded.model)
    model.response = replace(model.response, norm=model.response.norm * float("inf"))
    hidden = torch.ones(4, model.architecture.hidden)
    first, second = read_answers(model, hidden, [placed(0, 2, [1], Role.ASSISTANT), placed(2, 2, [1], Role.USER)])
    assert isinstance(first, GuardFault)
    assert isinstance(second, bytes)
