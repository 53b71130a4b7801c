"""One stream as the engine sees it: its tokens, how far they are computed, and what is asked of it."""

from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxy.guard.cache import Change
from proxy.risk import Role


@dataclass(eq=False, slots=True)
class Job:
    """One question to a sequence: compute it up to `end`, answer at `reads`."""

    ticket: int  # names the question in its outcome
    end: int  # tokens
    reads: Ordered[int]  # positions to answer, ascending
    role: Role
    arrived: float  # seconds, the engine's clock
    is_open: bool = False  # a new stream waits for admission, and may be refused
    is_first: bool = False  # the first question of a sequence: its beginning is offered to those that come later
    rows: bytearray = field(default_factory=bytearray)  # one a read so far; see `rows`
    is_alone: bool = False  # a batch with it failed: it runs in a step of its own
    crashes: int = 0  # engine restarts it has been through


@dataclass(eq=False, slots=True)
class Sequence:
    """Tokens [0, computed) have their keys and values in `slot`; the ids are kept, so all can be replayed."""

    id: int
    owner: str
    ids: list[int]
    computed: int = 0
    slot: Any = None  # what the cache made of it: a `cache.Slot`, a `pages.Table`, or None
    job: Job | None = None
    used_at: float = 0.0

    def truncate(self, position: int) -> None:
        del self.ids[position:]
        self.computed = min(self.computed, position)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens [start, start + count) of a sequence, to be computed in one step."""

    sequence: Sequence
    job: Job
    start: int
    count: int
    reads: Ordered[int]  # positions to answer, all within the chunk


class KeyValueCache(Protocol):
    """Where sequences' keys and values lie: what the scheduler asks of `cache.Cache` and of `pages.PageCache`."""

    bytes_per_token: int
    budget_bytes: int
    window: int
    journal: list[Change]  # what the runner must do in memory, in order, before the next step
    grows_in_place: bool  # False: growing may need room for the old and the new place at once

    @property
    def held_tokens(self) -> int:
        """Room that sequences hold."""

    @property
    def used_bytes(self) -> int:
        """Taken from the device."""

    def fits(self, holder: Sequence, tokens: int) -> bool:
        """True when `ensure` would find that nothing must be taken: the holder has its room already."""

    def ensure(self, holder: Sequence, tokens: int) -> bool:
        """Make `holder.slot` writable from `holder.computed` up to `tokens`; False when there is no room."""

    def share(self, holder: Sequence, other: Sequence) -> None:
        """Let `other`, which holds nothing yet, have its first `computed` tokens from `holder`."""

    def settle(self, holder: Sequence) -> None:
        """The holder is done writing."""

    def drop(self, holder: Sequence) -> None:
        """Let go of what the holder holds, if anything."""

    def condemn(self, slot: Any) -> Ordered[Any]:
        """What lies there cannot be trusted: those who must start anew do; they are returned."""
