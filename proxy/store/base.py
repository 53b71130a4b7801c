"""What a store can do, and how it fails. Stores are used by one thread at a time."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from proxy.store.filters import Filter
from proxy.store.row import Row

# Records read at a time, so that a long export never holds a long transaction.
PAGE_ROWS = 500


class StoreError(Exception):
    """It cannot be read or written now. One line, without content; what was not written may be tried again."""


class StoreCorrupt(StoreError):
    """What is there is no database of records, or a broken one."""


class StoreUnusable(StoreError):
    """It will not work by trying again: a newer Weir made it, or a library is missing."""


class StoreRefused(StoreError):
    """Something in these rows is not taken, now or later."""


class Store(Protocol):
    def write(self, rows: Sequence[Row]) -> None:
        """All of them or none; one that is there already stays as it is. Raises StoreError."""

    def prune(self, oldest: float, max_bytes: int) -> int:
        """Delete what began before `oldest`, then the oldest until the rest fits; how many went. Raises StoreError.

        A store may do it in parts: there is more to do until it says 0.
        """

    def used_bytes(self) -> int:
        """Of what `max_bytes` limits. Raises StoreError."""

    def find(self, wanted: Filter, *, newest_first: bool = True, most: int | None = None) -> Iterator[dict[str, Any]]:
        """Records as the log has them. Raises StoreError."""

    def show(self, name: str) -> dict[str, Any] | None:
        """The one record whose id is `name` or begins with it; None where there is none, or more.

        With its `trace`, as `trace.unpack` gives it, where one was kept. Raises StoreError.
        """

    def close(self) -> None: ...


class Place(Protocol):
    """Where a store is, open or not."""

    def name(self) -> str:
        """For people: no user, no password. Raises StoreUnusable."""

    def open(self, *, is_reader: bool = False) -> Store:
        """Made or migrated if need be; for a reader it must be there, and nothing is changed. Raises StoreError."""

    def set_aside(self) -> str:
        """Out of the way with a store that is corrupt; returns where it is now. Raises OSError."""
