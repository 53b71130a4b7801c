"""The steps to the tables of today."""

import sqlite3

from proxy.store.row import COLUMNS
from proxy.store.schema import STEPS, VERSION, steps_from
from proxy.store.sqlite import TYPES


def test_steps_are_those_that_are_missing_in_their_order() -> None:
    assert [number for number, _ in steps_from(0, TYPES)] == list(range(1, VERSION + 1))
    assert steps_from(VERSION, TYPES) == []
    assert steps_from(VERSION + 1, TYPES) == []


def test_all_steps_together_make_the_columns_of_a_row() -> None:
    connection = sqlite3.connect(":memory:")
    for _, statements in steps_from(0, TYPES):
        for statement in statements:
            connection.execute(statement)
    assert tuple(found[1] for found in connection.execute("PRAGMA table_info(records)")) == COLUMNS
    connection.close()


def test_the_first_step_is_as_it_was_released() -> None:
    assert "body TEXT NOT NULL)" in STEPS[0][0]
