"""A guard's process with a model that kills or hangs it: `python -m tests.guard.deadly`, as `supervisor` is run."""

import os
import signal
import sys
import time
from dataclasses import replace

from torch import Tensor

from proxy.guard.loader import LoadedGuard
from proxy.guard.model import Attend
from proxy.guard.supervisor import Supervisor, run
from tests.guard.driver import Same

# Ids of the small checkpoints' vocabulary.
KILLS, HANGS = 398, 399


class Deadly(Same):
    """Two tokens are the end of the process that computes them."""

    def forward(self, ids: Tensor, positions: Tensor, last: int, attend: Attend) -> Tensor:
        if (ids == KILLS).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if (ids == HANGS).any():
            time.sleep(3600)
        return super().forward(ids, positions, last, attend)


class DeadlySupervisor(Supervisor):
    def load(self) -> LoadedGuard:
        loaded = super().load()
        return replace(loaded, model=Deadly(loaded.model))


if __name__ == "__main__":
    sys.exit(run(DeadlySupervisor))
