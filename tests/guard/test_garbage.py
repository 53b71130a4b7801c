"""What a process does about garbage once it serves (see `tests/e2e/test_garbage.py` for why it may)."""

import subprocess
import sys

SCRIPT = """
import gc
from proxy.guard.garbage import SEARCHES, keep_what_is_loaded
kept = [[] for _ in range(1000)]
keep_what_is_loaded()
assert gc.get_freeze_count() >= 1000
assert not any(one is kept[0] for one in gc.get_objects())
assert gc.get_threshold() == SEARCHES
assert gc.isenabled()
"""


def test_what_is_loaded_is_not_searched_and_the_rest_seldom() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
