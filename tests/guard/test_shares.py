import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxy.guard.architecture import read_architecture
from proxy.guard.cache import Grow, Slot
from proxy.guard.random_weights import SHAPES, random_guard
from proxy.guard.rows import read_rows
from proxy.guard.runner import Runner
from proxy.guard.sequence import Chunk, Job, Sequence
from proxy.guard.shares import SHARE_TOKENS, Shares, cut, is_small
from proxy.guard.slab import Placed, place
from proxy.risk import Role
from tests.guard.checkpoints import random_ids
from tests.guard.driver import distance, rows_of


def chunk(index: int, count: int) -> Chunk:
    sequence = Sequence(index, "", random_ids(count, seed=index), 0, Slot(0, index, 128, []))
    return Chunk(sequence, Job(index, count, list(range(count)), Role.ASSISTANT, 0.0), 0, count, list(range(count)))


def placed(*counts: int) -> list[Placed]:
    return place([chunk(index, count) for index, count in enumerate(counts)])


@given(st.lists(st.integers(1, 600), min_size=1, max_size=80), st.integers(1, 8))
def test_shares_are_all_chunks_in_order_and_about_equal(counts: list[int], cores: int) -> None:
    shares = cut(placed(*counts), cores)
    assert [at.chunk.sequence.id for share in shares for at in share] == list(range(len(counts)))
    assert 1 <= len(shares) <= max(1, min(cores, sum(counts) // SHARE_TOKENS))
    for share in shares:
        sizes = [at.chunk.count for at in share]
        assert [at.first for at in share] == [sum(sizes[:number]) for number in range(len(sizes))]
        assert sum(sizes) <= sum(counts) / len(shares) + max(counts)


def test_a_small_step_is_one_share_in_the_callers_thread() -> None:
    seen: list[threading.Thread] = []

    def work(share: list[Placed]) -> list[int]:
        seen.append(threading.current_thread())
        return [at.chunk.count for at in share]

    assert Shares(2).run(work, placed(*[1] * (2 * SHARE_TOKENS - 1))) == [1] * (2 * SHARE_TOKENS - 1)
    assert seen == [threading.current_thread()]
    assert Shares(2).run(work, placed(*[2] * SHARE_TOKENS)) == [2] * SHARE_TOKENS
    assert len(seen) == 3
    assert len(set(seen)) == 2


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_of_any_share_comes_out_after_all_have_ended(bad: int) -> None:
    ended: list[int] = []
    both = threading.Barrier(2, timeout=60)

    def work(share: list[Placed]) -> list[int]:
        number = int(share[0].chunk.sequence.id != 0)
        both.wait()
        if number == bad:
            raise RuntimeError("no")
        ended.append(number)
        return []

    with pytest.raises(RuntimeError, match="no"):
        Shares(2).run(work, placed(*[2] * SHARE_TOKENS))
    assert ended == [1 - bad]


def test_rows_are_the_same_however_many_cores() -> None:
    model = random_guard("tiny", dtype="float32").model
    answers = []
    for cores in (1, 2, 3):
        runner = Runner(model)
        runner.use_threads(cores)
        runner.prepare([Grow(0, 40, 128)])
        answers.append(runner.run([chunk(index, 1 + index % 20) for index in range(40)]))
    assert torch.get_num_threads() == 1
    for other in answers[1:]:
        for index, (one, two) in enumerate(zip(answers[0], other, strict=True)):
            assert isinstance(one, bytes)
            assert isinstance(two, bytes)
            rows = [rows_of(read_rows(answer, 1 + index % 20, Role.ASSISTANT)) for answer in (one, two)]
            assert distance(*rows) < 1e-5


@pytest.mark.parametrize(("size", "small"), [("tiny", True), ("0.6b", False), ("8b", False)])
def test_only_a_model_that_caches_hold_is_shared(size: str, small: bool) -> None:
    assert is_small(read_architecture(SHAPES[size]), 2) is small
