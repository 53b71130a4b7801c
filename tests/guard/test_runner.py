import pytest
import torch

from proxy.guard.cache import Grow, Move, Retire, Scrub, Slot
from proxy.guard.protocol import GuardError, GuardFault
from proxy.guard.rows import read_rows, row_bytes
from proxy.guard.runner import Runner
from proxy.guard.sequence import Chunk, Job, Sequence
from proxy.risk import PROMPT_CATEGORIES, RESPONSE_CATEGORIES, RISK_LEVELS, Risk, Role
from tests.guard.checkpoints import random_ids
from tests.guard.driver import Small, distance, rows_of, with_nan


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


def chunk(ids: list[int], index: int, reads: list[int], role: Role, start: int = 0) -> Chunk:
    sequence = Sequence(index, "", ids, start, Slot(0, index, 128, []))
    return Chunk(sequence, Job(index, len(ids), reads, role, 0.0), start, len(ids) - start, reads)


def risks_of(answer: bytes | GuardError, role: Role = Role.ASSISTANT) -> list[Risk]:
    assert isinstance(answer, bytes)
    return read_rows(answer, len(answer) // row_bytes(role), role)


def test_each_role_reads_its_own_heads_in_one_step(small: Small) -> None:
    runner = Runner(small.loaded.model)
    runner.prepare([Grow(0, 4, 128)])
    first, second, third = random_ids(20), random_ids(7, seed=1), random_ids(9, seed=2)
    answers = runner.run(
        [
            chunk(third, 2, [8], Role.USER),
            chunk(first, 0, [3, 19], Role.USER),
            chunk(second, 1, list(range(7)), Role.ASSISTANT),
        ]
    )
    risks = [
        risks_of(answer, role) for answer, role in zip(answers, (Role.USER, Role.USER, Role.ASSISTANT), strict=True)
    ]
    prompt = small.reference.rows(first, "query_")
    assert distance(rows_of(risks[0]), small.reference.rows(third, "query_")[8:]) < 1e-5
    assert distance(rows_of(risks[1]), [prompt[3], prompt[19]]) < 1e-5
    assert distance(rows_of(risks[2]), small.reference.rows(second)) < 1e-5
    for risk in risks[1]:
        assert risk.probability == max(risk.levels) == risk.levels[RISK_LEVELS.index(risk.level)]
        assert risk.categories[PROMPT_CATEGORIES.index(risk.category)] == risk.category_probability
    assert all(len(risk.categories) == len(RESPONSE_CATEGORIES) for risk in risks[2])


def test_moved_memory_goes_on_where_it_was_and_scrubbed_memory_is_zero(small: Small) -> None:
    runner = Runner(small.loaded.model)
    ids = random_ids(30)
    runner.prepare([Grow(0, 4, 128), Grow(1, 2, 256)])
    runner.run([chunk(ids[:20], 3, [], Role.ASSISTANT)])
    runner.prepare([Move((0, 3), (1, 1), 20), Scrub(0, 3), Move((1, 1), (0, 0), 20), Retire(1)])
    (answer,) = runner.run([chunk(ids, 0, list(range(20, 30)), Role.ASSISTANT, start=20)])
    assert distance(rows_of(risks_of(answer)), small.reference.rows(ids)[20:]) < 1e-5
    (again,) = runner.run([chunk(ids, 3, [29], Role.ASSISTANT, start=20)])
    assert distance(rows_of(risks_of(again)), small.reference.rows(ids)[29:]) > 1e-3


def test_chunks_without_reads_answer_nothing_and_bad_ones_fail_alone(small: Small) -> None:
    runner = Runner(with_nan(small.loaded.model, 7))
    runner.prepare([Grow(0, 4, 128)])
    answers = runner.run([chunk([1, 2], 0, [], Role.USER), chunk([1, 7], 1, [], Role.USER)])
    assert answers[0] == b""
    assert isinstance(answers[1], GuardFault)


def test_bytes_per_token_and_budget_are_the_machines(small: Small) -> None:
    runner = Runner(small.loaded.model)
    assert runner.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4
    assert runner.default_budget_bytes() > 1 << 20
    assert runner.default_budget_bytes(0.5) > 1.5 * runner.default_budget_bytes()


def test_threads_are_set_where_it_is_called(small: Small) -> None:
    Runner(small.loaded.model).use_threads(1)
    assert torch.get_num_threads() == 1
