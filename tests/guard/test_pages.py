import pytest

from proxy.guard.cache import Copy
from proxy.guard.pages import PAGE_TOKENS, PageCache, pages_for
from proxy.guard.sequence import Sequence


def cache_of(pages: int, window: int = 256) -> PageCache:
    return PageCache(bytes_per_token=1024, budget_bytes=pages * PAGE_TOKENS * 1024, window=window)


def sequence(number: int, computed: int = 0) -> Sequence:
    return Sequence(number, "", [], computed)


def pages_of(holder: Sequence) -> list[int]:
    return list(holder.slot.pages)


def opened(cache: PageCache, tokens: int) -> Sequence:
    holder = sequence(0)
    assert cache.ensure(holder, tokens)
    holder.computed = tokens
    return holder


def forked(cache: PageCache, holder: Sequence, computed: int) -> Sequence:
    child = sequence(1, computed)
    cache.share(holder, child)
    return child


def test_a_budget_below_one_window_is_refused() -> None:
    with pytest.raises(ValueError, match="hold 192 tokens, not 256"):
        cache_of(3)


def test_pages_are_taken_as_needed_and_go_back() -> None:
    cache = cache_of(8)
    a = opened(cache, 65)
    assert pages_of(a) == [0, 1]
    assert cache.ensure(a, 129)
    assert pages_of(a) == [0, 1, 2]
    assert cache.held_tokens == 3 * PAGE_TOKENS
    cache.drop(a)
    assert (cache.held_tokens, cache.holders(), cache.journal) == (0, {}, [])


def test_no_room_is_said_and_changes_nothing() -> None:
    cache = cache_of(4)
    a, b = opened(cache, 129), sequence(1)
    assert not cache.ensure(b, 65)
    assert b.slot is None
    assert not cache.ensure(a, 257)
    assert pages_of(a) == [0, 1, 2]
    assert cache.ensure(b, 64)


def test_a_fork_shares_all_and_copies_the_partly_filled_page_when_it_writes() -> None:
    cache = cache_of(8)
    parent = opened(cache, 100)
    child = forked(cache, parent, 100)
    assert cache.held_tokens == 2 * PAGE_TOKENS
    assert cache.ensure(child, 110)
    assert pages_of(child) == [0, 2]
    assert cache.journal == [Copy(1, 2, 36)]
    assert cache.ensure(parent, 110)  # alone in its page again: no copy
    assert pages_of(parent) == [0, 1]
    assert cache.holders() == {0: 2, 1: 1, 2: 1}


def test_full_pages_are_never_copied() -> None:
    cache = cache_of(8)
    parent = opened(cache, 128)
    child = forked(cache, parent, 128)
    assert cache.ensure(child, 129)
    assert cache.ensure(parent, 129)
    assert pages_of(child)[:2] == pages_of(parent)[:2]
    assert cache.journal == []


def test_a_fork_of_a_beginning_shares_only_that() -> None:
    cache = cache_of(8)
    parent = opened(cache, 200)
    child = forked(cache, parent, 70)
    assert pages_of(child) == [0, 1]
    assert cache.ensure(child, 71)
    assert cache.journal == [Copy(1, 4, 6)]
    assert cache.holders() == {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}


def test_a_rewind_gives_pages_back_and_never_writes_into_shared_ones() -> None:
    cache = cache_of(8)
    parent = opened(cache, 200)
    child = forked(cache, parent, 200)
    parent.computed = 64
    assert cache.ensure(parent, 130)
    assert pages_of(parent) == [0, 4, 5]  # it begins at a page's first place: nothing to copy
    assert cache.journal == []
    assert pages_of(child) == [0, 1, 2, 3]
    child.computed = 10
    assert cache.ensure(child, 20)
    assert pages_of(child) == [1]
    assert cache.journal == [Copy(0, 1, 10)]


def test_a_page_lives_until_its_last_holder_goes() -> None:
    cache = cache_of(8)
    parent = opened(cache, 50)
    child = forked(cache, parent, 50)
    cache.drop(parent)
    assert cache.holders() == {0: 1}
    cache.drop(child)
    cache.drop(child)
    assert cache.held_tokens == 0


def test_nothing_is_shared_of_a_stream_that_holds_nothing() -> None:
    cache = cache_of(8)
    assert forked(cache, sequence(0), 0).slot is None
    assert forked(cache, opened(cache, 10), 0).slot is None


def test_condemned_is_the_writer_alone() -> None:
    cache = cache_of(8)
    parent = opened(cache, 100)
    child = forked(cache, parent, 100)
    assert cache.ensure(child, 110)
    cache.settle(child)
    assert cache.condemn(child.slot) == [child]
    assert (child.computed, child.slot) == (0, None)
    assert (parent.computed, pages_of(parent)) == (100, [0, 1])


def test_the_pool_is_whole_pages_within_the_budget() -> None:
    cache = PageCache(bytes_per_token=10, budget_bytes=10 * PAGE_TOKENS * 5 + 639, window=300)
    assert cache.page_count == 5
    assert cache.used_bytes == 3200 <= cache.budget_bytes
    assert [pages_for(tokens) for tokens in (0, 1, 64, 65)] == [0, 1, 1, 2]
