import pytest

from proxy.guard.cache import Cache, Grow, Move, Retire, Scrub
from proxy.guard.sequence import Sequence


def cache_of(tokens: int, window: int = 1024) -> Cache:
    return Cache(bytes_per_token=1024, budget_bytes=tokens * 1024, window=window)


def sequence(number: int, computed: int = 0) -> Sequence:
    return Sequence(number, "", [], computed)


def place(holder: Sequence) -> tuple[int, int]:
    assert holder.slot is not None
    return holder.slot.slab, holder.slot.index


def test_a_budget_below_one_window_is_refused() -> None:
    with pytest.raises(ValueError, match="hold 100 tokens, not 1024"):
        cache_of(100)


def test_neighbours_lie_side_by_side_and_freed_slots_are_used_again() -> None:
    cache = cache_of(8192)
    a, b, c = sequence(0), sequence(1), sequence(2)
    assert all(cache.ensure(holder, 100) for holder in (a, b, c))
    assert [place(holder) for holder in (a, b, c)] == [(0, 0), (0, 1), (0, 2)]
    cache.drop(b)
    assert cache.ensure(d := sequence(3), 128)
    assert place(d) == (0, 1)
    assert cache.held_tokens == 3 * 128


def test_growth_moves_what_is_computed_to_a_bigger_slot() -> None:
    cache = cache_of(8192)
    a = sequence(0)
    assert cache.ensure(a, 128)
    a.computed = 120
    assert cache.ensure(a, 129)
    assert a.slot is not None
    assert a.slot.capacity == 256
    assert cache.journal[-1] == Move((0, 0), (1, 0), 120)


def test_the_largest_slot_is_the_window() -> None:
    cache = cache_of(4096, window=300)
    assert cache.ensure(a := sequence(0), 290)
    assert a.slot is not None
    assert a.slot.capacity == 300


def test_no_room_is_said_and_changes_nothing() -> None:
    cache = cache_of(1024)
    a, b = sequence(0), sequence(1)
    assert cache.ensure(a, 1000)
    assert not cache.ensure(b, 10)
    assert b.slot is None
    cache.drop(a)
    assert cache.ensure(b, 10)
    assert Retire(0) in cache.journal
    assert cache.used_bytes <= cache.budget_bytes


def test_only_one_of_those_who_share_writes_in_place() -> None:
    cache = cache_of(8192)
    parent = sequence(0)
    cache.ensure(parent, 50)
    parent.computed = 50
    first, second = sequence(1, 50), sequence(2, 50)
    cache.share(parent, first)
    cache.share(parent, second)
    cache.settle(parent)
    assert cache.ensure(first, 60)
    assert place(first) == place(parent)
    assert cache.ensure(second, 60)
    assert place(second) != place(parent)
    assert Move(place(parent), place(second), 50) in cache.journal
    assert cache.ensure(parent, 60)
    assert place(parent) not in (place(first), place(second))


def test_a_slot_lives_until_its_last_holder_goes() -> None:
    cache = cache_of(8192)
    parent, child = sequence(0), sequence(1)
    cache.ensure(parent, 50)
    cache.share(parent, child)
    cache.drop(parent)
    assert cache.held_tokens == 128
    cache.drop(child)
    assert cache.held_tokens == 0


def test_one_empty_slab_of_a_size_is_kept_and_the_others_go_back() -> None:
    cache = Cache(bytes_per_token=1 << 20, budget_bytes=4096 << 20, window=1024)
    holders = [sequence(number) for number in range(3)]  # a slot is a slab at this size
    for holder in holders:
        cache.ensure(holder, 100)
    for holder in holders:
        cache.drop(holder)
    assert cache.used_bytes == 128 << 20
    assert [change for change in cache.journal if isinstance(change, Retire)] == [Retire(1), Retire(2)]


def test_a_condemned_slot_is_zeroed_and_everyone_in_it_starts_anew() -> None:
    cache = cache_of(8192)
    parent, child = sequence(0, 40), sequence(1, 40)
    cache.ensure(parent, 50)
    cache.share(parent, child)
    assert parent.slot is not None
    cache.condemn(parent.slot)
    assert [(holder.computed, holder.slot) for holder in (parent, child)] == [(0, None), (0, None)]
    assert cache.journal == [Grow(0, 4, 128), Scrub(0, 0)]
    assert cache.held_tokens == 0
