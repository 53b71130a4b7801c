"""Key-value memory, counted but not touched: which stream's tokens lie where. No torch here.

Memory comes in slabs of equal slots; a slot is one stream's keys and values, contiguous, so that
attention reads them as a view and neighbouring slots as one batch. A stream that outgrows its slot
moves to one twice as large. Streams with the same past share a slot until their ways part: the first
to write goes on in place, the next ones copy.

Every change that the runner must make in memory is appended to `journal`, in order.
"""

import heapq
from dataclasses import dataclass, field
from typing import Protocol

# The smallest slot: a short prompt and a short answer.
SMALLEST_TOKENS = 128
# The streams of a slab are computed together; a bigger slab strands more memory behind its last stream.
SLOTS_PER_SLAB = 256
SLAB_BYTES = 128 << 20


class OutOfMemory(Exception):
    """The device has less memory than the budget says."""


class Holder(Protocol):
    """Whoever keeps tokens in a slot."""

    computed: int  # tokens whose keys and values are in the slot, counted from its start
    slot: "Slot | None"


@dataclass(eq=False, slots=True)
class Slot:
    slab: int
    index: int
    capacity: int  # tokens
    holders: list[Holder]
    writer: Holder | None = None  # the one holder that appends here now


@dataclass(frozen=True, slots=True)
class Grow:
    """Allocate a slab: zeros for `slots` slots of `capacity` tokens."""

    slab: int
    slots: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Give a slab's memory back."""

    slab: int


@dataclass(frozen=True, slots=True)
class Move:
    """Copy the first `length` tokens of one slot to another."""

    source: tuple[int, int]  # slab, index
    target: tuple[int, int]
    length: int


@dataclass(frozen=True, slots=True)
class Scrub:
    """Zero a slot: masked positions are read, and nothing times NaN is still NaN."""

    slab: int
    index: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the first `length` tokens of one page to another (see `pages`)."""

    source: int
    target: int
    length: int


Change = Grow | Retire | Move | Scrub | Copy


@dataclass(slots=True)
class Slab:
    id: int
    slots: int
    capacity: int
    free: list[int] = field(default_factory=list)  # a heap: the lowest index first keeps neighbours together

    @property
    def is_empty(self) -> bool:
        return len(self.free) == self.slots


class Cache:
    """Slots within a budget. Sizes are tokens unless they say bytes. See `sequence.KeyValueCache`."""

    grows_in_place = False

    def __init__(self, *, bytes_per_token: int, budget_bytes: int, window: int) -> None:
        """Raises ValueError when the budget does not hold one stream of `window` tokens."""
        if window * bytes_per_token > budget_bytes:
            raise ValueError(f"{budget_bytes} bytes hold {budget_bytes // bytes_per_token} tokens, not {window}")
        self.bytes_per_token = bytes_per_token
        self.budget_bytes = budget_bytes
        self.window = window
        self.used_bytes = 0  # of slabs
        self.held_tokens = 0  # room in the slots that are held
        self.journal: list[Change] = []
        self._slabs: dict[int, Slab] = {}
        # Slabs of one capacity with a free slot, as a heap; what is full or gone is dropped when it comes up.
        self._with_room: dict[int, list[int]] = {}
        self._empty: dict[int, dict[int, None]] = {}  # of one capacity, in the order in which they emptied
        self._next_slab = 0

    def fits(self, holder: Holder, tokens: int) -> bool:
        """True when `ensure` would find that nothing must change: the holder has its room already."""
        return holder.slot is not None and holder.slot.capacity >= tokens and _may_write(holder.slot, holder)

    def ensure(self, holder: Holder, tokens: int) -> bool:
        """Make `holder.slot` writable from `holder.computed` up to `tokens`; False when there is no room."""
        slot = holder.slot
        if slot is not None and self.fits(holder, tokens):
            slot.writer = holder
            return True
        target = self._take(self._capacity_for(tokens))
        if target is None:
            return False
        if slot is not None:
            if holder.computed:
                move = Move((slot.slab, slot.index), (target.slab, target.index), holder.computed)
                self.journal.append(move)
            self.drop(holder)
        target.holders.append(holder)
        target.writer = holder
        holder.slot = target
        return True

    def share(self, holder: Holder, other: Holder) -> None:
        """Let `other`, which holds nothing yet, hold what `holder` does."""
        if holder.slot is not None:
            holder.slot.holders.append(other)
            other.slot = holder.slot

    def settle(self, holder: Holder) -> None:
        """The holder is done writing: from here on its computed tokens say what is taken."""
        if holder.slot is not None and holder.slot.writer is holder:
            holder.slot.writer = None

    def drop(self, holder: Holder) -> None:
        """Let go of the holder's slot, if any; the last one to go frees it."""
        slot, holder.slot = holder.slot, None
        if slot is None:
            return
        slot.holders.remove(holder)
        if slot.writer is holder:
            slot.writer = None
        if not slot.holders:
            self._free(self._slabs[slot.slab], slot.index)

    def condemn(self, slot: Slot) -> list[Holder]:
        """What lies in the slot cannot be trusted: everyone who holds it (returned) starts anew, and it is zeroed."""
        self.journal.append(Scrub(slot.slab, slot.index))
        holders = list(slot.holders)
        for holder in holders:
            holder.computed = 0
            self.drop(holder)
        return holders

    def _capacity_for(self, tokens: int) -> int:
        capacity = SMALLEST_TOKENS
        while capacity < tokens:
            capacity *= 2
        return min(capacity, self.window)

    def _take(self, capacity: int) -> Slot | None:
        slab = self._slab_with_room(capacity) or self._grow(capacity)
        if slab is None:
            return None
        self.held_tokens += capacity
        self._empty[capacity].pop(slab.id, None)
        return Slot(slab.id, heapq.heappop(slab.free), capacity, [])

    def _free(self, slab: Slab, index: int) -> None:
        self.held_tokens -= slab.capacity
        if not slab.free:
            heapq.heappush(self._with_room[slab.capacity], slab.id)
        heapq.heappush(slab.free, index)
        if slab.is_empty:
            empty = self._empty[slab.capacity]
            empty[slab.id] = None
            while len(empty) > 1:  # one is kept, which the next stream will want
                self._retire(max(empty))

    def _slab_with_room(self, capacity: int) -> Slab | None:
        # The oldest first, so that the youngest slabs empty and can be given back.
        heap = self._with_room.get(capacity, [])
        while heap:
            slab = self._slabs.get(heap[0])
            if slab is not None and slab.free:
                return slab
            heapq.heappop(heap)
        return None

    def _grow(self, capacity: int) -> Slab | None:
        slot_bytes = capacity * self.bytes_per_token
        if self.budget_bytes - self.used_bytes < slot_bytes:
            for spare in [slab for empty in self._empty.values() for slab in empty]:
                self._retire(spare)
        room = (self.budget_bytes - self.used_bytes) // slot_bytes
        # A small budget must not be one big slab of one size.
        slab_bytes = min(SLAB_BYTES, self.budget_bytes // 16)
        slots = min(room, SLOTS_PER_SLAB, max(1, slab_bytes // slot_bytes))
        if slots < 1:
            return None
        slab = Slab(self._next_slab, slots, capacity, list(range(slots)))
        self._next_slab += 1
        self._slabs[slab.id] = slab
        heapq.heappush(self._with_room.setdefault(capacity, []), slab.id)
        self._empty.setdefault(capacity, {})[slab.id] = None
        self.used_bytes += slots * slot_bytes
        self.journal.append(Grow(slab.id, slots, capacity))
        return slab

    def _retire(self, slab_id: int) -> None:
        """Give an empty slab's memory back."""
        slab = self._slabs.pop(slab_id)
        del self._empty[slab.capacity][slab_id]
        self.used_bytes -= slab.slots * slab.capacity * self.bytes_per_token
        self.journal.append(Retire(slab_id))


def _may_write(slot: Slot, holder: Holder) -> bool:
    """True when nobody else writes here, or keeps tokens where this holder would write next."""
    if slot.writer is not None and slot.writer is not holder:
        return False
    if len(slot.holders) == 1:
        return True
    return all(other is holder or other.computed <= holder.computed for other in slot.holders)
