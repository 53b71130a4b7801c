"""Random guards stand behind the same doors as real ones."""

import pytest

from proxy.benchmark.guards import engine_settings, load, open_guard
from proxy.guard.answer import classify
from proxy.guard.loader import CheckpointError
from proxy.guard.process import Config
from tests.guard.checkpoints import random_ids

TINY = Config("random-tiny", engine_settings(1, None, None), dtype="float32")


def test_a_name_is_a_shape_or_what_the_loader_takes() -> None:
    assert load(TINY).info.model == "random-tiny"
    assert load(Config("embedded", TINY.settings)).info.model == "embedded"
    with pytest.raises(CheckpointError, match="random shape 'huge'"):
        load(Config("random-huge", TINY.settings))


@pytest.mark.parametrize("in_process", [False, True])
async def test_a_thread_and_a_process_answer_alike(in_process: bool) -> None:
    ids = random_ids(20)
    answers = []
    for choice in (False, in_process):
        guard = await open_guard(TINY, load(TINY), in_process=choice)
        try:
            assert guard.info.model == "random-tiny"
            stream, _ = await guard.open(ids)
            answers.append([risk.levels for risk in await classify(stream, 20, [1, 2, 3])])
        finally:
            await guard.close()
    assert answers[0] == answers[1]
