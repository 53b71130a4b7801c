"""The corpus, replayed; `make fuzz` mutates it."""

import random

import pytest

from tests.driver import WORDS, answer
from tests.fakes import ScriptedUpstream
from tests.fuzz import inputs
from tests.fuzz.http import check_http
from tests.fuzz.mutate import MAX_BYTES, mutate
from tests.fuzz.targets import TARGETS
from tests.servers import weir


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_breaks_nothing(target: str) -> None:
    for name, data in inputs.of(target).items():
        try:
            TARGETS[target](data)
        except Exception as exc:
            raise AssertionError(f"{target}/{name}: {data[:200]!r}") from exc


async def test_the_corpus_of_raw_requests_breaks_nothing() -> None:
    async with weir(ScriptedUpstream(answer(WORDS))) as server:
        for data in inputs.of("http").values():
            await check_http(server, data)


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_mutations_break_nothing(target: str) -> None:
    rng, known = random.Random(target), list(inputs.of(target).values())
    for _ in range(40):
        TARGETS[target](mutate(rng, known))


def test_a_seed_gives_the_same_inputs() -> None:
    known = list(inputs.of("sse").values())
    first, second = ([mutate(rng, known) for _ in range(50)] for rng in (random.Random(7), random.Random(7)))
    assert first == second
    assert len(set(first)) > 40
    assert max(map(len, first)) <= MAX_BYTES
