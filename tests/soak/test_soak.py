"""A few seconds of the soak; `make soak` runs as long as it is told."""

from tests.soak.__main__ import soak
from tests.soak.figures import slope_of


async def test_a_short_soak_loses_nothing_and_leaves_nothing() -> None:
    found = await soak(4 / 60, 12, pace=0.02, every=0.25)
    assert found.tally.lost == []
    assert found.tally.leak <= 0
    assert found.left == []
    assert {"complete", "cut"} <= set(found.tally.ends)
    assert len(found.samples) > 4


def test_a_slope_is_that_of_the_line_and_lies_within_its_bounds() -> None:
    seconds = list(range(100))
    line = slope_of(seconds, [3 + 2 * second for second in seconds])
    assert (line.value, line.low, line.high) == (7200, 7200, 7200)
    wild = slope_of(seconds, [500.0 if second % 10 == 3 else 1.0 + second % 2 for second in seconds])
    assert wild.low <= 0 <= wild.high
    rising = slope_of(seconds, [second + 30.0 * (second % 2) for second in seconds])
    assert 0 < rising.low <= 3600 <= rising.high
