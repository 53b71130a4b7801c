"""Key-value memory of a GPU, counted but not touched: which stream's tokens lie in which pages. No torch here.

All memory is one pool of equal pages, taken once, so nothing is allocated while streams come and go and a
kernel finds any stream through its list of page numbers. Streams with the same past hold the same pages;
the one that writes into a page which others hold gets a copy of it first (copy on write).

A page is written by a holder only while nobody else holds it, or where the others hold nothing yet: they
know how many tokens of it are theirs, and what comes behind those is the writer's.
"""

from array import array
from typing import Protocol

from proxy.guard.cache import Change, Copy

# Big enough that a page of one key head (16 KiB at 128 bf16 numbers) is read at full speed and page numbers
# are few; small enough that half a page, which a stream wastes on average, is little beside its text.
PAGE_TOKENS = 64


class Table:
    """The pages of one holder, in the order of its tokens."""

    __slots__ = ("holder", "pages")

    def __init__(self, holder: "Holder", pages: "array[int]") -> None:
        self.holder = holder
        self.pages = pages  # 32-bit, as the kernels read them

    @property
    def holders(self) -> "list[Holder]":
        """Those who start anew where this is condemned."""
        return [self.holder]


class Holder(Protocol):
    """Whoever keeps tokens in pages."""

    computed: int  # tokens whose keys and values are in the pages, counted from the first
    slot: Table | None


class PageCache:
    """Pages within a budget. Sizes are tokens unless they say bytes. See `sequence.KeyValueCache`."""

    grows_in_place = True

    def __init__(self, *, bytes_per_token: int, budget_bytes: int, window: int) -> None:
        """Raises ValueError when the budget does not hold one stream of `window` tokens."""
        self.page_count = budget_bytes // (PAGE_TOKENS * bytes_per_token)
        if pages_for(window) > self.page_count:
            raise ValueError(f"{budget_bytes} bytes hold {self.page_count * PAGE_TOKENS} tokens, not {window}")
        self.bytes_per_token = bytes_per_token
        self.budget_bytes = budget_bytes
        self.window = window
        self.journal: list[Change] = []
        # A stack: what was freed last is used first.
        self._free = list(range(self.page_count))[::-1]
        self._holders = [0] * self.page_count  # how many hold each page

    @property
    def used_bytes(self) -> int:
        """Of the pool, which is taken as a whole."""
        return self.page_count * PAGE_TOKENS * self.bytes_per_token

    @property
    def held_tokens(self) -> int:
        return (self.page_count - len(self._free)) * PAGE_TOKENS

    def holders(self) -> dict[int, int]:
        """How many hold each page that anybody holds."""
        return {page: count for page, count in enumerate(self._holders) if count}

    def fits(self, holder: Holder, tokens: int) -> bool:
        """True when `ensure` would find that nothing must be taken: the holder has its room already."""
        if holder.slot is None or len(holder.slot.pages) < pages_for(tokens):
            return False
        written = range(holder.computed // PAGE_TOKENS, pages_for(tokens))
        return all(self._holders[holder.slot.pages[index]] == 1 for index in written)

    def ensure(self, holder: Holder, tokens: int) -> bool:
        """Make `holder.slot` writable from `holder.computed` up to `tokens`; False when there is no room.

        `tokens` is not below `computed`, so what lies behind it was taken back and is given up in any case.
        """
        pages = holder.slot.pages if holder.slot is not None else array("i")
        kept, partial = divmod(holder.computed, PAGE_TOKENS)
        needed = pages_for(tokens)
        while len(pages) > needed:  # after a rewind
            self._release(pages.pop())
        # From the page of the first new token on, whatever others hold is theirs.
        lent = [index for index in range(kept, len(pages)) if self._holders[pages[index]] > 1]
        if len(lent) + needed - len(pages) > len(self._free):
            return False
        for index in lent:
            fresh = self._take()
            if index == kept and partial:
                self.journal.append(Copy(pages[index], fresh, partial))
            self._release(pages[index])
            pages[index] = fresh
        while len(pages) < needed:
            pages.append(self._take())
        if holder.slot is None:
            holder.slot = Table(holder, pages)
        return True

    def share(self, holder: Holder, other: Holder) -> None:
        """Let `other`, which holds nothing yet, hold the pages of its `computed` tokens, which `holder` has too."""
        if holder.slot is None or not other.computed:
            return
        pages = holder.slot.pages[: pages_for(other.computed)]
        for page in pages:
            self._holders[page] += 1
        other.slot = Table(other, pages)

    def settle(self, holder: Holder) -> None:
        """Nothing to do: who holds a page is all that counts."""

    def drop(self, holder: Holder) -> None:
        """Let go of the holder's pages, if any; those that nobody else holds are free again."""
        table, holder.slot = holder.slot, None
        if table is not None:
            for page in reversed(table.pages):
                self._release(page)

    def condemn(self, table: Table) -> list[Holder]:
        """Whoever computed what cannot be trusted starts anew; those it shares pages with need not.

        What they hold was computed, and found good, before they came to hold it. Nothing is zeroed: no kernel
        reads a place that its stream has not written.
        """
        table.holder.computed = 0
        self.drop(table.holder)
        return [table.holder]

    def _take(self) -> int:
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def _release(self, page: int) -> None:
        self._holders[page] -= 1
        if not self._holders[page]:
            self._free.append(page)


def pages_for(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS)
