import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.guard.cache import Change, Grow, OutOfMemory
from proxy.guard.engine import Engine
from proxy.guard.limits import Limits
from proxy.guard.protocol import GuardFault, GuardOverloaded, GuardUnavailable
from proxy.guard.runner import Runner
from tests.guard.checkpoints import random_ids
from tests.guard.driver import Driver, Poisoned, Small, distance, with_nan

TIGHT = 1e-5


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


def test_prompt_and_answer_equal_one_clean_forward(small: Small) -> None:
    ids = random_ids(300)
    driver = small.engine()
    stream, ticket = driver.open(ids[:100], read=[40, 99])
    prompt = small.reference.rows(ids[:100], "query_")
    assert distance(driver.rows(ticket), [prompt[40], prompt[99]]) < TIGHT
    expected = small.reference.rows(ids)
    whole = driver.rows(driver.feed(stream, 100, ids[100:]))
    assert distance(whole, expected[100:]) < TIGHT
    one_by_one = [driver.rows(driver.feed(stream, 100 + i, [token]))[0] for i, token in enumerate(ids[100:])]
    assert distance(one_by_one, expected[100:]) < TIGHT


@pytest.mark.parametrize("piece", [512, 37])
def test_many_streams_in_ragged_chunks_equal_one_clean_forward_each(small: Small, piece: int) -> None:
    driver = small.engine(limits=Limits(piece=piece))
    dice = random.Random(piece)
    texts = [random_ids(dice.randint(30, 300), seed) for seed in range(24)]
    streams = [driver.open(text[:20], owner=f"key {number % 3}")[0] for number, text in enumerate(texts)]
    fed = [20] * len(texts)
    found: list[list[list[float]]] = [[] for _ in texts]
    while any(at < len(text) for at, text in zip(fed, texts, strict=True)):
        tickets = {}
        for number, text in enumerate(texts):
            if fed[number] < len(text) and dice.random() < 0.8:
                chunk = text[fed[number] :][: dice.choice([1, 1, 1, 2, 3, 7, 9, 40, 100])]
                tickets[number] = driver.feed(streams[number], fed[number], chunk)
                fed[number] += len(chunk)
        for number, ticket in tickets.items():
            found[number] += driver.rows(ticket)
    for text, rows in zip(texts, found, strict=True):
        assert distance(rows, small.reference.rows(text)[20:]) < TIGHT


def test_forks_share_their_past_and_go_separate_ways(small: Small) -> None:
    ids = random_ids(60)
    driver = small.engine()
    parent, _ = driver.open(ids)
    driver.run()
    before = driver.engine.metrics().kv_held_bytes
    children = [driver.fork(parent, 60) for _ in range(3)]
    assert driver.engine.metrics().kv_held_bytes == before
    tails = [random_ids(20, seed) for seed in range(1, 5)]
    for _ in range(2):
        # All four write in the same step, the second time after a rewind.
        tickets = [driver.feed(stream, 60, tail) for stream, tail in zip([parent, *children], tails, strict=True)]
        for ticket, tail in zip(tickets, tails, strict=True):
            assert distance(driver.rows(ticket), small.reference.rows(ids + tail)[60:]) < TIGHT
    driver.close(parent)
    ticket = driver.feed(children[0], 80, tails[0])
    assert distance(driver.rows(ticket), small.reference.rows(ids + tails[1] + tails[0])[80:]) < TIGHT


def test_rewind_takes_tokens_back(small: Small) -> None:
    ids, other = random_ids(150), random_ids(150, seed=1)
    driver = small.engine()
    stream, _ = driver.open(ids[:50])
    driver.rows(driver.feed(stream, 50, ids[50:]))
    ticket = driver.feed(stream, 90, other)
    assert distance(driver.rows(ticket), small.reference.rows(ids[:90] + other)[90:]) < TIGHT


def test_evicted_streams_are_replayed_and_judge_the_same(small: Small) -> None:
    # Room for two of six streams: every turn evicts.
    driver = small.engine(budget_tokens=1024, limits=Limits(idle_seconds=0.0))
    texts = [random_ids(400, seed) for seed in range(6)]
    streams = []
    for text in texts:
        streams.append(driver.open(text[:300])[0])
        driver.run()
    for start in range(300, 400, 50):
        tickets = [driver.feed(s, start, t[start : start + 50]) for s, t in zip(streams, texts, strict=True)]
        for ticket, text in zip(tickets, texts, strict=True):
            assert distance(driver.rows(ticket), small.reference.rows(text)[start : start + 50]) < TIGHT
    metrics = driver.engine.metrics()
    assert metrics.evictions > 6
    assert metrics.kv_slab_bytes <= metrics.kv_budget_bytes


def test_a_batch_of_64_judges_like_a_batch_of_one(small: Small) -> None:
    texts = [random_ids(61 + seed % 12, seed) for seed in range(64)]
    together, alone = small.engine(), small.engine()
    streams = [together.open(text[:60])[0] for text in texts]
    together.run()
    tickets = [together.feed(stream, 60, text[60:]) for stream, text in zip(streams, texts, strict=True)]
    together.run()
    assert together.engine.metrics().last_batch == 64
    for text, ticket in zip(texts, tickets, strict=True):
        stream, _ = alone.open(text[:60])
        rows = [alone.rows(alone.feed(stream, 60 + i, [token]))[0] for i, token in enumerate(text[60:])]
        assert distance(rows, together.rows(ticket)) < TIGHT


def test_numbers_that_are_not_finite_fail_their_stream_only(small: Small) -> None:
    driver = Driver(with_nan(small.loaded.model, 7), 1 << 20)
    clean = [token for token in random_ids(200) if token != 7]
    streams = [driver.open(clean[:50])[0] for _ in range(3)]
    driver.run()
    tickets = [driver.feed(stream, 50, tail) for stream, tail in zip(streams, ([7], clean[50:], [7, 8]), strict=True)]
    driver.run()
    assert isinstance(driver.answers[tickets[0]].error, GuardFault)
    assert isinstance(driver.answers[tickets[2]].error, GuardFault)
    assert distance(driver.rows(tickets[1]), small.reference.rows(clean)[50:]) < TIGHT
    # The failed streams go on from before the token, and their memory poisons nobody who gets it next.
    driver.close(streams[1])
    for stream in (streams[0], driver.open(clean[:50])[0], streams[2]):
        ticket = driver.feed(stream, 50, clean[50:])
        assert distance(driver.rows(ticket), small.reference.rows(clean)[50:]) < TIGHT


def test_not_finite_is_seen_even_where_nothing_is_read(small: Small) -> None:
    driver = Driver(with_nan(small.loaded.model, 7), 1 << 20)
    _, ticket = driver.open([1, 7, 2, 3])
    driver.run()
    assert isinstance(driver.answers[ticket].error, GuardFault)


def test_poison_fails_its_stream_and_31_are_unaffected(small: Small) -> None:
    model = Poisoned(small.loaded.model, 7, lambda: RuntimeError("kernel died"))
    driver = Driver(model, 1 << 20)
    clean = [token for token in random_ids(60) if token != 7]
    streams = [driver.open(clean[:30])[0] for _ in range(32)]
    driver.run()
    tickets = [driver.feed(stream, 30, [7] if n == 13 else clean[30:]) for n, stream in enumerate(streams)]
    driver.run()
    assert model.calls == 2  # in the batch, then alone
    assert isinstance(driver.answers[tickets.pop(13)].error, GuardFault)
    expected = small.reference.rows(clean)[30:]
    assert all(distance(driver.rows(ticket), expected) < TIGHT for ticket in tickets)


def test_a_restart_replays_every_stream(small: Small) -> None:
    ids = random_ids(120)
    driver = small.engine()
    streams = [driver.open(ids[:40])[0] for _ in range(5)]
    driver.run()
    tickets = [driver.feed(stream, 40, ids[40:]) for stream in streams[:3]]
    driver.engine.restart(GuardUnavailable("device lost"))
    tickets += [driver.feed(stream, 40, ids[40:]) for stream in streams[3:]]
    for ticket in tickets:
        assert distance(driver.rows(ticket), small.reference.rows(ids)[40:]) < TIGHT
    assert driver.engine.metrics().restarts == 1


def test_an_unknown_stream_is_an_error_and_closing_it_is_not(small: Small) -> None:
    driver = small.engine()
    ticket = driver.feed(99, 0, [1])
    assert isinstance(driver.answers[ticket].error, GuardUnavailable)
    driver.fork(99, 0)
    driver.close(99)


def test_nothing_is_left_after_closing(small: Small) -> None:
    driver = small.engine()
    for seed in range(50):
        stream, _ = driver.open(random_ids(100, seed))
        if seed % 3:
            driver.run()
        child = driver.fork(stream, 100)
        driver.feed(child, 100, [1, 2, 3])
        if seed % 2:
            driver.run()
        driver.close(stream, child)
    driver.run()
    metrics = driver.engine.metrics()
    assert (metrics.streams, metrics.queue_depth, metrics.kv_held_bytes) == (0, 0, 0)


def test_other_shapes_of_heads_batch_the_same(tmp_path: Path) -> None:
    for kv_heads in (1, 4):
        small = Small(tmp_path / str(kv_heads), num_key_value_heads=kv_heads, attention_bias=True)
        driver = small.engine()
        texts = [random_ids(20 + seed, seed) for seed in range(12)]
        streams = [driver.open(text[:17])[0] for text in texts]
        driver.run()
        driver.close(streams[4])
        tickets = {n: driver.feed(streams[n], 17, texts[n][17:]) for n in range(12) if n != 4}
        for n, ticket in tickets.items():
            assert distance(driver.rows(ticket), small.reference.rows(texts[n])[17:]) < TIGHT


def test_prompts_that_begin_alike_share_it_and_judge_the_same(small: Small) -> None:
    driver = small.engine()
    system = random_ids(150)
    texts = [system + random_ids(40, seed) for seed in range(1, 5)]
    for text in texts:
        stream, ticket = driver.open(text[:170], read=[169], owner="key")
        assert distance(driver.rows(ticket), small.reference.rows(text[:170], "query_")[169:]) < TIGHT
        assert distance(driver.rows(driver.feed(stream, 170, text[170:])), small.reference.rows(text)[170:]) < TIGHT
    assert driver.engine.metrics().shared_tokens == 3 * 150


class SmallDevice(Runner):
    """Holds less than it says."""

    limit_bytes = 1 << 62

    def prepare(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Grow):
                wanted = change.slots * change.capacity * self.kv_bytes_per_token
                if self.held_bytes + wanted > self.limit_bytes:
                    raise OutOfMemory("the device has no memory left")
            super().prepare([change])


def test_a_device_that_is_smaller_than_its_budget_costs_no_stream(small: Small) -> None:
    driver = small.engine(budget_tokens=1 << 15)
    runner = SmallDevice(small.loaded.model)
    driver.engine = Engine(runner, window=512, budget_bytes=1 << 15 << 8, limits=Limits(admission_seconds=0.05))
    runner.limit_bytes = 4096 * runner.kv_bytes_per_token
    ids = random_ids(300)
    streams = [driver.open(ids[:200], owner=str(number)) for number in range(30)]
    driver.run()
    errors = [driver.answers[ticket].error for _, ticket in streams]
    admitted = [stream for (stream, _), error in zip(streams, errors, strict=True) if error is None]
    assert len(admitted) >= 8
    assert all(error is None or isinstance(error, GuardOverloaded) for error in errors)
    assert runner.held_bytes <= runner.limit_bytes
    for stream in admitted[:8]:
        assert distance(driver.rows(driver.feed(stream, 200, ids[200:])), small.reference.rows(ids)[200:]) < TIGHT
    driver.close(*(stream for stream, _ in streams))
    assert driver.engine.metrics().kv_held_bytes == 0
    assert driver.engine.metrics().kv_budget_bytes <= runner.limit_bytes


def test_a_device_without_room_for_one_window_is_a_crash(small: Small) -> None:
    driver = small.engine(budget_tokens=1 << 15)
    runner = SmallDevice(small.loaded.model)
    driver.engine = Engine(runner, window=512, budget_bytes=1 << 15 << 8)
    runner.limit_bytes = 0
    driver.open([1, 2, 3])
    with pytest.raises(OutOfMemory):
        driver.run()
