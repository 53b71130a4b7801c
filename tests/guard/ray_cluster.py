"""A Ray cluster of several nodes on this machine, with token authentication: for `make ray` alone."""

import importlib.util
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
# Its nodes take minutes on a small machine that has other things to do.
WITH_RAY = bool(os.environ.get("WEIR_RAY")) and importlib.util.find_spec("ray") is not None
WITHOUT = "needs Ray, which is no dependency: `make ray` runs it"
# Ray reads it once in a process.
TOKEN = secrets.token_hex(32)
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@contextmanager
def ray_cluster(nodes: int) -> Iterator[Any]:
    """A head without room for engines, and so many nodes with room for one each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(nodes):
                cluster.add_node(**NODE)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
