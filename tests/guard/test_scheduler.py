from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.guard.pages import PAGE_TOKENS, PageCache, pages_for
from proxy.guard.protocol import GuardFault, GuardOverloaded
from proxy.guard.sequence import KeyValueCache, Sequence
from tests.guard.world import LIMITS, SAFE, World

both_caches = pytest.mark.parametrize("paged", [False, True], ids=["slots", "pages"])


@both_caches
def test_a_long_prompt_delays_others_by_one_piece_a_step(paged: bool) -> None:
    world = World(paged=paged)
    talker = world.open(range(10))
    world.run()
    long = world.open(range(500))
    for _ in range(5):
        ticket = world.feed(talker, [1])
        plan = world.step()
        assert ticket in world.outcomes
        assert sum(chunk.count for chunk in plan.chunks if chunk.sequence is long) == LIMITS.piece


@both_caches
def test_an_owner_with_many_streams_does_not_starve_one_with_one(paged: bool) -> None:
    world = World(budget_tokens=100_000, paged=paged)
    crowd = [world.open(range(5), owner="crowd") for _ in range(100)]
    single = world.open(range(5), owner="single")
    world.run()
    for sequence in crowd:
        world.feed(sequence, range(8))
    ticket = world.feed(single, [1])
    world.step()
    assert ticket in world.outcomes
    assert world.scheduler.queue_depth > 90


@both_caches
def test_long_prompts_of_two_owners_take_turns(paged: bool) -> None:
    world = World(budget_tokens=100_000, paged=paged)
    for _ in range(10):
        world.open(range(500), owner="crowd")
    single = world.open(range(200), owner="single")
    for _ in range(8):
        world.step()
    assert single.computed == 200


@both_caches
def test_silent_streams_give_their_memory_up_and_are_replayed(paged: bool) -> None:
    world = World(budget_tokens=512, paged=paged)
    first = world.open(range(400))
    world.run()
    world.now += LIMITS.idle_seconds + 1
    second = world.open(range(400))
    world.run()
    assert (first.slot, first.computed, second.computed) == (None, 0, 400)
    ticket = world.feed(first, [7])
    world.run()
    assert world.outcomes[ticket].error is None
    assert world.outcomes[ticket].rows == SAFE
    assert world.scheduler.counters.evictions == 2


@both_caches
def test_an_open_without_room_is_refused_in_time_and_leaves_nothing(paged: bool) -> None:
    world = World(budget_tokens=512, paged=paged)
    first = world.open(range(400))
    world.run()
    second = world.open(range(400))
    while 2 not in world.outcomes:
        world.step()
        world.now += 0.5
        world.feed(first, [1], position=400)  # the first stream is never silent for long
    assert isinstance(world.outcomes[2].error, GuardOverloaded)
    assert second.slot is None


@both_caches
def test_an_owners_open_without_room_holds_up_neither_others_nor_its_own_streams(paged: bool) -> None:
    world = World(budget_tokens=1024, paged=paged)
    talker = world.open(range(100), owner="big")
    blocker = world.open(range(400), owner="big")
    world.run()
    world.feed(blocker, [1])
    world.open(range(1000, 1512), owner="big")
    world.step()
    small = world.open(range(100), owner="small")
    ticket = world.feed(talker, [1])
    world.step()
    world.step()
    assert small.computed == 100
    assert ticket in world.outcomes


@both_caches
def test_a_prompt_that_begins_alike_is_computed_once_and_never_for_another_owner(paged: bool) -> None:
    world = World(budget_tokens=20_000, paged=paged)
    system = list(world.fresh(200))
    first = world.open([*system, *world.fresh(50)], owner="a")
    world.run()
    second = world.open([*system, *world.fresh(50)], owner="a")
    assert [chunk.start for chunk in world.step().chunks] == [200]
    world.run()
    stranger = world.open([*system, *world.fresh(50)], owner="b")
    assert [chunk.start for chunk in world.step().chunks] == [0]
    world.run()
    for sequence in (first, second, stranger):
        world.feed(sequence, world.fresh(5))
    world.run()
    for sequence in (first, second, stranger):
        world.close(sequence)
    assert world.scheduler.cache.held_tokens == 0
    third = world.open(system, owner="a")
    world.step()
    assert third.computed == LIMITS.piece


@both_caches
def test_a_stream_that_fills_the_budget_alone_grows_by_starting_over(paged: bool) -> None:
    world = World(budget_tokens=512, paged=paged)
    sequence = world.open(range(250))
    world.run()
    world.feed(sequence, range(262))
    world.run()
    assert sequence.computed == 512


@both_caches
def test_a_failed_step_runs_one_by_one_and_only_the_culprit_fails(paged: bool) -> None:
    world = World(paged=paged)
    sequences = [world.open(range(5)) for _ in range(4)]
    world.run()
    tickets = [world.feed(sequence, [1]) for sequence in sequences]
    plan = world.scheduler.plan(world.now)
    world.scheduler.isolate(plan, GuardFault("bad"))
    for _ in range(4):
        plan = world.scheduler.plan(world.now)
        assert len(plan.chunks) == 1
        if plan.chunks[0].sequence is sequences[2]:
            world.scheduler.isolate(plan, GuardFault("bad"))
        else:
            world.scheduler.commit(plan, world.memory.run(plan), world.now)
    world.collect()
    errors = [world.outcomes[ticket].error for ticket in tickets]
    assert [error is None for error in errors] == [True, True, False, True]
    assert not world.scheduler.has_jobs


def test_a_long_job_that_must_run_alone_takes_every_other_step_only() -> None:
    world = World()
    talker = world.open(range(10))
    world.run()
    suspect = world.open(world.fresh(500))
    plan = world.step()
    world.scheduler.restart(world.new_cache(4096, 512), [talker, suspect], plan, GuardFault("crash"))
    world.memory = world.new_memory()
    steps = 0
    while suspect.job is not None:
        ticket = world.feed(talker, [1])
        assert len(world.step().chunks) == 1
        if ticket not in world.outcomes:
            world.step()
        assert ticket in world.outcomes
        steps += 1
    assert steps < 20


@both_caches
def test_after_a_crash_everything_is_replayed_but_its_step_only_once(paged: bool) -> None:
    world = World(paged=paged)
    sequences = [world.open(range(5)) for _ in range(3)]
    world.run()
    tickets = [world.feed(sequence, [1]) for sequence in sequences]
    plan = world.scheduler.plan(world.now)
    for _ in range(2):
        world.memory = world.new_memory()
        world.scheduler.restart(world.new_cache(4096, 512), sequences, plan, GuardFault("crash"))
        plan = world.scheduler.plan(world.now)
        assert len(plan.chunks) == 1
        world.memory.run(plan)
    world.scheduler.commit(plan, [SAFE], world.now)
    world.run()
    errors = [world.outcomes[ticket].error for ticket in tickets]
    assert sum(error is not None for error in errors) == 1


@both_caches
def test_a_withdrawn_question_has_no_outcome_and_its_stream_goes_on(paged: bool) -> None:
    world = World(paged=paged)
    sequence = world.open(range(5))
    world.run()
    gone = world.feed(sequence, range(300))
    world.step()
    world.scheduler.withdraw(sequence)
    ticket = world.feed(sequence, [1], position=5)
    world.run()
    assert gone not in world.outcomes
    assert world.outcomes[ticket].rows == SAFE


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["open", "feed", "feed", "feed", "rewind", "fork", "close", "withdraw", "step", "wait"]),
        st.integers(0, 30),
        st.integers(1, 200),
    ),
    min_size=20,
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(ACTIONS, st.sampled_from([512, 700, 2000, 20_000]), st.booleans())
def test_invariants_hold_after_every_random_plan(actions: list[tuple[str, int, int]], budget: int, paged: bool) -> None:
    world = World(budget_tokens=budget, paged=paged)
    alive = [world.open(world.fresh(size), owner) for size, owner in ((30, "a"), (60, "b"), (130, "a"))]
    world.run()
    for action, pick, size in actions:
        act(world, alive, action, pick, size)
        check(world, alive)
    world.run()
    check(world, alive)
    for sequence in alive:
        world.close(sequence)
    assert world.scheduler.cache.held_tokens == 0
    assert world.scheduler.queue_depth == 0


def act(world: World, alive: list[Sequence], action: str, pick: int, size: int) -> None:
    if action == "open":
        # Half of them begin like a stream that is already there, often one of the same owner.
        begin = alive[pick % len(alive)].ids[: 2 * size] if alive and pick % 2 else []
        alive.append(world.open([*begin, *world.fresh(size)][:512], owner="abc"[pick % 3]))
    elif action == "step":
        world.step()
    elif action == "wait":
        world.now += 3
    elif alive:
        act_on(world, alive, alive[pick % len(alive)], action, size)


def act_on(world: World, alive: list[Sequence], sequence: Sequence, action: str, size: int) -> None:
    is_let_in = sequence.job is None or not sequence.job.is_open
    if action in ("feed", "rewind") and is_let_in and sequence.ids:
        position = len(sequence.ids) if action == "feed" else len(sequence.ids) // 2
        world.feed(sequence, world.fresh(min(size, 512 - position)), position)
    elif action == "fork" and is_let_in:
        alive.append(world.fork(sequence))
    elif action == "withdraw":
        world.scheduler.withdraw(sequence)
    elif action == "close":
        alive.remove(sequence)
        world.close(sequence)


def check(world: World, alive: list[Sequence]) -> None:
    cache = world.scheduler.cache
    assert cache.used_bytes <= cache.budget_bytes
    assert all(sequence.computed == 0 for sequence in alive if sequence.slot is None)
    (check_pages if isinstance(cache, PageCache) else check_slots)(cache, alive)


def check_slots(cache: KeyValueCache, alive: list[Sequence]) -> None:
    places: dict[tuple[int, int], object] = {}
    for sequence in alive:
        if sequence.slot is not None:
            assert sequence in sequence.slot.holders
            place = (sequence.slot.slab, sequence.slot.index)
            assert places.setdefault(place, sequence.slot) is sequence.slot, "one place, two slots"
    held = sum(slot.capacity for slot in {sequence.slot for sequence in alive if sequence.slot is not None})
    assert held == cache.held_tokens


def check_pages(cache: KeyValueCache, alive: list[Sequence]) -> None:
    holders: Counter[int] = Counter()
    for sequence in alive:
        if sequence.slot is not None:
            assert sequence.slot.holder is sequence
            assert len(sequence.slot.pages) >= pages_for(sequence.computed)
            assert len(set(sequence.slot.pages)) == len(sequence.slot.pages), "one page, twice in a stream"
            holders.update(sequence.slot.pages)
    assert isinstance(cache, PageCache)
    assert holders == cache.holders()
    assert len(holders) * PAGE_TOKENS == cache.held_tokens
