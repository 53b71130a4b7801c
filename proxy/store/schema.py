"""The tables, as the steps that lead to them: step n makes a database of version n out of one of version n - 1.

A step that has been released is never changed; what is new is a new step. {id}, {blob} and {real} are the types of an
id, which sorts by its characters, of bytes and of floating-point numbers, which databases name differently.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from proxy.store.base import StoreUnusable

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE records ("
        "id {id} PRIMARY KEY, started {real} NOT NULL, seconds {real} NOT NULL, endpoint TEXT NOT NULL, "
        "key TEXT NOT NULL, model TEXT NOT NULL, upstream TEXT NOT NULL, policy TEXT NOT NULL, "
        "outcome TEXT NOT NULL, status INTEGER NOT NULL, scanned TEXT NOT NULL, category TEXT NOT NULL, "
        "body TEXT NOT NULL)",
        "CREATE INDEX records_started ON records (started, id)",
        "CREATE INDEX records_outcome ON records (outcome, started, id)",
        "CREATE INDEX records_category ON records (category, started, id) WHERE category <> ''",
    ),
    ("ALTER TABLE records ADD COLUMN trace {blob}",),
)
VERSION = len(STEPS)

TOO_NEW = "its records have version {found}, and this Weir knows none above {known}: upgrade Weir, or name another one"
NOTHING_YET = "there are no records yet: `weir serve` makes the tables"
TOO_OLD = "its records are of an older version: `weir serve` brings them up to date"
NOTHING_MORE: Mapping[int, Sequence[str]] = MappingProxyType({})


def steps_from(
    version: int, types: Mapping[str, str], more: Mapping[int, Sequence[str]] = NOTHING_MORE
) -> list[tuple[int, list[str]]]:
    """What is still to be done: the version that each step leads to, and its statements.

    `more`: what one database needs besides, by the version that it belongs to.
    """
    return [
        (number, [statement.format_map(types) for statement in (*STEPS[number - 1], *more.get(number, ()))])
        for number in range(version + 1, VERSION + 1)
    ]


def check_version(found: int) -> None:
    """Of a database that is there. Raises StoreUnusable."""
    if found > VERSION:
        raise StoreUnusable(TOO_NEW.format(found=found, known=VERSION))
    if found < VERSION:
        raise StoreUnusable(TOO_OLD if found else NOTHING_YET)
