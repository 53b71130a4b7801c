"""The tables, as the steps that lead to them: step n makes a database of version n out of one of version n - 1.

A step that has been released is never changed; what is new is a new step. {blob}, {real} and {big} are the
types of bytes, floating-point and 64-bit numbers, which databases name differently.
"""

from collections.abc import Mapping

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE records ("
        "id TEXT PRIMARY KEY, started {real} NOT NULL, seconds {real} NOT NULL, endpoint TEXT NOT NULL, "
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


def steps_from(version: int, types: Mapping[str, str]) -> list[tuple[int, list[str]]]:
    """What is still to be done: the version that each step leads to, and its statements."""
    return [
        (number, [statement.format_map(types) for statement in STEPS[number - 1]])
        for number in range(version + 1, VERSION + 1)
    ]
