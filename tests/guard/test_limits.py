import pytest

from proxy.guard.limits import Limits


@pytest.mark.parametrize("sizes", [{"short": 0}, {"short": 2000}, {"piece": 0}])
def test_sizes_that_would_leave_a_job_out_for_ever_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="leave jobs out"):
        Limits(**sizes)
