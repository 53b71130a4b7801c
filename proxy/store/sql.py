"""What all stores say in SQL. A `?` stands for a parameter."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

from proxy.store.base import PAGE_ROWS
from proxy.store.filters import Filter
from proxy.store.row import COLUMNS, Row
from proxy.trace import unpack

INSERT = f"INSERT INTO records ({', '.join(COLUMNS)}) {{}} ON CONFLICT (id) DO NOTHING"
DELETE_OLDEST = "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE started < ? ORDER BY started LIMIT ?)"
_values = attrgetter(*COLUMNS)
# Deleted at a time: a moment's work, so that other writers get their turn, and few of a small store.
PRUNE_ROWS = 100


class SqlStore(ABC):
    """Everything but the connection."""

    @abstractmethod
    def _ask(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; returns its rows. Raises StoreError."""

    def find(self, wanted: Filter, *, newest_first: bool = True, most: int | None = None) -> Iterator[dict[str, Any]]:
        condition, parameters = wanted.where()
        order, beyond = ("DESC", "<") if newest_first else ("ASC", ">")
        place: list[object] = []
        while most is None or most > 0:
            count = PAGE_ROWS if most is None else min(most, PAGE_ROWS)
            after = f" AND (started, id) {beyond} (?, ?)" if place else ""
            sql = f"SELECT started, id, body FROM records WHERE {condition}{after} ORDER BY started {order}, id {order}"
            page = self._ask(f"{sql} LIMIT ?", [*parameters, *place, count])
            yield from (json.loads(body) for _, _, body in page)
            if len(page) < count:
                return
            place = list(page[-1][:2])
            most = None if most is None else most - count

    def show(self, name: str) -> dict[str, Any] | None:
        # Everything that begins with `name` sorts from it to before its last possible successor.
        sql = "SELECT body, trace FROM records WHERE id = ? OR (id > ? AND id < ?) ORDER BY id LIMIT 2"
        found = self._ask(sql, [name, name, f"{name}\U0010ffff"])
        if len(found) != 1:
            return None
        [(body, trace)] = found
        record: dict[str, Any] = json.loads(body)
        return record | ({"trace": unpack(bytes(trace))} if trace is not None else {})


def values_of(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    return [_values(row) for row in rows]
