import queue
import threading

import pytest

from proxy.guard.commands import Close, Feed, Open, Outcome
from proxy.guard.engine import Engine
from proxy.guard.engine_thread import EngineThread
from proxy.guard.protocol import GuardUnavailable
from proxy.guard.rows import read_rows
from proxy.guard.runner import Runner
from proxy.risk import Role
from tests.guard.checkpoints import random_ids
from tests.guard.driver import Small, distance, rows_of


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


def started(small: Small, answers: "queue.Queue[list[Outcome]]", deaths: list[GuardUnavailable]) -> EngineThread:
    engine = Engine(Runner(small.loaded.model), window=1024, budget_bytes=1 << 24)
    thread = EngineThread(engine, lambda: None, answers.put)
    thread.start(deaths.append)
    return thread


def test_commands_of_one_batch_are_taken_in_order_and_answered(small: Small) -> None:
    answers: queue.Queue[list[Outcome]] = queue.Queue()
    before = threading.enumerate()
    thread = started(small, answers, [])
    ids = random_ids(40)
    thread.submit([Open(1, 9, ids[:30], [], Role.USER, "")])
    assert answers.get(timeout=60)[0].ticket == 1
    thread.submit([Feed(2, 9, 30, ids[30:]), Feed(3, 9, 30, ids[30:])])
    (outcome,) = answers.get(timeout=60)
    assert outcome.ticket == 3, "a newer question of a stream replaces the one before it"
    assert distance(rows_of(read_rows(outcome.rows, 10, Role.ASSISTANT)), small.reference.rows(ids)[30:]) < 1e-5
    thread.submit([Close(9), Feed(4, 9, 40, [1])])
    assert isinstance(answers.get(timeout=60)[0].error, GuardUnavailable)
    thread.stop(60)
    assert not any(alive.name == "guard-engine" for alive in threading.enumerate() if alive not in before)


def test_stopping_twice_is_safe(small: Small) -> None:
    thread = started(small, queue.Queue(), [])
    thread.stop(60)
    thread.stop(60)
