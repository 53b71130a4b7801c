"""Which runner a device gets: slots and views on a CPU, pages and graphs on a GPU."""

from collections.abc import Sequence
from typing import Protocol

from proxy.guard.cache import Change
from proxy.guard.model import GuardModel
from proxy.guard.protocol import GuardError, GuardUnavailable
from proxy.guard.runner import Runner
from proxy.guard.sequence import Chunk, KeyValueCache
from proxy.guard.settings import GuardSettings


class AnyRunner(Protocol):
    """What the engine asks of a runner: `runner.Runner` and `paged_runner.PagedRunner`."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def kv_bytes_per_token(self) -> int: ...

    @property
    def held_bytes(self) -> int:
        """Memory taken for streams."""

    def default_budget_bytes(self, share: float | None = None) -> int:
        """That share of the free memory; without one, what a machine with other work can spare."""

    def tokens_in(self, budget_bytes: int) -> int:
        """The longest stream that a budget holds."""

    def use_threads(self, count: int | None) -> None: ...

    def new_cache(self, budget_bytes: int, window: int) -> KeyValueCache:
        """Accounting over memory that holds nothing yet. Raises ValueError for a budget below one window."""

    def reset(self) -> None:
        """All memory is forgotten; `new_cache` follows."""

    def prepare(self, changes: Sequence[Change]) -> None: ...

    def run(self, chunks: Sequence[Chunk]) -> list[bytes | GuardError]: ...


def make_runner(model: GuardModel, settings: GuardSettings) -> AnyRunner:
    """Raises GuardUnavailable when the device lacks what its runner needs, or cannot do what is asked."""
    if model.device.type != "cuda":
        if settings.kv_dtype != "auto":
            raise GuardUnavailable(f'kv_dtype = "{settings.kv_dtype}" needs a GPU; on a CPU it is "auto"')
        return Runner(model)
    try:
        # Late: a machine without a GPU need not have triton.
        from proxy.guard.paged_runner import PagedRunner
    except ImportError as exc:
        raise GuardUnavailable(f"on a GPU the guard needs triton, which torch for CUDA brings along: {exc}") from exc
    return PagedRunner(model, limits=settings.limits, kv_dtype=settings.kv_dtype, cuda_graphs=settings.cuda_graphs)
