"""A slice of the fault matrix; `make faults` runs all of it."""

import os

from tests.faults.engine import LIES
from tests.faults.matrix import LINKS, MODES, PHASES, Result, cells, run_all, some_cells
from tests.faults.toxics import TOXICS

COUNT = 640 if "WEIR_LONG" in os.environ else 40


def test_the_matrix_has_every_fault_link_phase_and_mode() -> None:
    assert len(list(cells())) == (len(TOXICS) * len(LINKS) + len(LIES)) * len(PHASES) * len(MODES)
    assert {(cell.fault, cell.link) for cell in some_cells(40, 1)} == {(cell.fault, cell.link) for cell in cells()}


async def test_whatever_breaks_on_any_link_nothing_leaks_hangs_or_ends_untold() -> None:
    results: list[Result] = []
    await run_all(some_cells(COUNT, seed=1), results.append, at_once=8)
    assert [(str(result.cell), result.problems) for result in results if result.problems] == []
    assert {"complete", "cut", "error", "refused"} <= {result.outcome for result in results}
