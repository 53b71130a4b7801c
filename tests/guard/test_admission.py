"""Who gets memory when there is not enough: the bounds that `scheduler` and the simulation rest on."""

from dataclasses import replace

from proxy.guard.protocol import GuardOverloaded, GuardUnavailable
from proxy.guard.sequence import Job, Sequence
from proxy.risk import Role
from tests.guard.world import LIMITS, World


def opened(world: World, count: int, size: int, owner: str) -> list[Sequence]:
    sequences = [world.open(world.fresh(size), owner) for _ in range(count)]
    world.run()
    return sequences


def busy(world: World, sequences: list[Sequence]) -> None:
    """They are fed again as soon as they have their verdicts: never silent, never growing."""
    for sequence in sequences:
        if sequence.job is None and sequence.slot is not None:
            world.feed(sequence, [1], position=len(sequence.ids) - 1)


def test_a_stream_that_must_grow_gets_its_room_from_streams_that_are_never_silent() -> None:
    world = World(budget_tokens=1024, limits=replace(LIMITS, stall_seconds=0.1))
    crowd = opened(world, 6, 100, "crowd")
    [single] = opened(world, 1, 100, "single")
    busy(world, crowd)
    ticket = world.feed(single, world.fresh(300))
    started = world.now
    while ticket not in world.outcomes:
        busy(world, crowd)
        world.step()
        assert world.now < started + 0.2
    assert single.computed == 400


def test_an_owner_below_its_share_is_let_in_where_another_holds_everything() -> None:
    world = World(budget_tokens=1024, limits=replace(LIMITS, fair_seconds=0.1, stall_seconds=0.05))
    crowd = opened(world, 8, 100, "crowd")
    single, late = world.open(world.fresh(100), "single"), world.open(world.fresh(100), "crowd")
    started = world.now
    while single.computed < 100:
        busy(world, crowd)
        world.step()
        assert world.now < started + 0.2
    while late.job is not None:
        busy(world, [*crowd, single])
        world.step()
        world.now += 0.1
    assert late.computed == 0  # its owner has more than its share
    assert isinstance(world.outcomes[10].error, GuardOverloaded)


def test_jobs_that_would_only_wait_in_memory_wait_outside() -> None:
    world = World(budget_tokens=100_000)
    for _ in range(50):
        world.open(world.fresh(100), "crowd")
    world.step()
    running = world.scheduler.queue_depth - len(world.scheduler.admission)
    assert running == LIMITS.piece // LIMITS.short
    world.open(world.fresh(100), "single")
    world.step()
    assert len(world.scheduler.admission.opens) < 50  # another owner's is let in all the same
    world.run()


def test_a_flood_of_opens_is_let_in_some_a_step() -> None:
    world = World(budget_tokens=100_000)
    for _ in range(300):
        world.open(world.fresh(4), "crowd")
    waiting = []
    while world.scheduler.has_jobs:
        world.step()
        waiting.append(len(world.scheduler.admission))
    assert waiting[0] >= 300 - 64
    assert waiting[-1] == 0


def test_a_withdrawn_question_that_waits_is_forgotten() -> None:
    world = World(budget_tokens=512)
    sequence = opened(world, 1, 400, "")[0]
    waiting = world.open(world.fresh(400), "a")
    growing = world.feed(sequence, world.fresh(112))
    world.step()
    world.close(waiting)
    world.scheduler.withdraw(sequence)
    world.run()
    assert growing not in world.outcomes
    assert len(world.scheduler.admission) == 0


def test_after_a_restart_nothing_is_kept_or_held() -> None:
    world = World(budget_tokens=4096, limits=replace(LIMITS, kept_tokens=1000))
    first, second = opened(world, 2, 100, "key")
    world.close(first)
    assert world.scheduler.kept_tokens == 100
    cache = world.new_cache(4096, 512)
    world.scheduler.restart(cache, [second], None, GuardUnavailable("crash"))
    assert world.scheduler.kept_tokens == 0
    assert len(world.scheduler.admission.prefixes) == 1
    world.close(second)
    assert cache.held_tokens == 0


def test_a_prompt_that_is_known_to_its_end_and_asks_for_nothing_is_answered_all_the_same() -> None:
    world = World()
    ids = list(world.fresh(100))
    for _ in range(2):
        sequence = Sequence(len(world.sequences), "key", list(ids))
        world.sequences[sequence.id] = sequence
        job = Job(1000 + sequence.id, len(ids), (), Role.USER, world.now, is_open=True, is_first=True)
        world.scheduler.submit(sequence, job)
        while job.ticket not in world.outcomes:
            assert all(chunk.count for chunk in world.step().chunks)
    assert world.scheduler.counters.shared_tokens == len(ids) - 1
