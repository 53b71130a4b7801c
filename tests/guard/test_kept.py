from dataclasses import replace

from proxy.guard.kept import Kept
from proxy.guard.limits import Limits
from proxy.guard.sequence import Sequence
from tests.guard.world import LIMITS, World

KEEPING = replace(LIMITS, kept_tokens=300, kept_seconds=60.0)


def asked_and_closed(world: World, ids: list[int], owner: str = "key") -> Sequence:
    sequence = world.open(ids, owner)
    world.run()
    world.close(sequence)
    return sequence


def shared(world: World, ids: list[int], owner: str = "key") -> int:
    """Tokens of a new prompt that need not be computed."""
    before = world.scheduler.counters.shared_tokens
    asked_and_closed(world, ids, owner)
    return world.scheduler.counters.shared_tokens - before


def test_a_chats_next_request_begins_where_its_last_prompt_ended() -> None:
    world = World(budget_tokens=4096, limits=KEEPING)
    first = list(world.fresh(100))
    second = [*first, *world.fresh(50)]
    asked_and_closed(world, first)
    assert world.scheduler.kept_tokens == 100
    assert shared(world, second) == 100
    assert world.scheduler.kept_tokens == 150  # the longer one has taken the shorter one's place
    assert shared(world, [*second, *world.fresh(100)]) == 150


def test_another_owner_and_nobody_share_nothing() -> None:
    world = World(budget_tokens=4096, limits=KEEPING)
    ids = list(world.fresh(100))
    asked_and_closed(world, ids)
    assert shared(world, ids, owner="other") == 0
    world.now += 100
    world.run()
    asked_and_closed(world, ids, owner="")
    assert shared(world, ids, owner="") == 0


def test_the_longest_unused_goes_first_and_the_bound_holds() -> None:
    world = World(budget_tokens=4096, limits=KEEPING)
    texts = [list(world.fresh(100)) for _ in range(5)]
    for text in texts:
        asked_and_closed(world, text)
        assert world.scheduler.kept_tokens <= 300
    assert shared(world, [*texts[4], 1]) == 100
    assert shared(world, [*texts[0], 1]) == 0
    asked_and_closed(world, list(world.fresh(301)))
    assert world.scheduler.kept_tokens <= 300  # what is more than the bound is not kept at all


def test_nothing_is_kept_for_longer_than_its_time() -> None:
    world = World(budget_tokens=4096, limits=KEEPING)
    asked_and_closed(world, list(world.fresh(100)))
    world.now += KEEPING.kept_seconds + 1
    world.step()
    assert (world.scheduler.kept_tokens, world.scheduler.cache.held_tokens) == (0, 0)


def test_whoever_needs_room_gets_that_of_closed_prompts_first() -> None:
    world = World(budget_tokens=512, limits=KEEPING)
    silent = world.open(world.fresh(100), "key")
    world.run()
    for _ in range(2):
        asked_and_closed(world, list(world.fresh(100)))
    world.now += LIMITS.idle_seconds + 1
    world.open(world.fresh(250), "other")
    world.run()
    assert world.scheduler.kept_tokens == 100
    assert silent.computed == 100
    assert world.scheduler.counters.evictions == 0


def test_without_the_bound_nothing_is_kept() -> None:
    world = World(budget_tokens=4096)
    asked_and_closed(world, list(world.fresh(100)), "key")
    assert world.scheduler.cache.held_tokens == 0
    assert len(world.scheduler.admission.prefixes) == 0


def test_a_sequence_that_is_not_here_is_not_removed() -> None:
    kept = Kept(Limits(kept_tokens=10))
    assert kept.surplus(0.0) is None
    assert not kept.remove(Sequence(1, "key", [], 5))
    assert not kept.is_worth(Sequence(1, "key", [], 5))
    assert len(kept) == 0
