"""A plan's chunks -> tensors -> rows: the only place where streams meet memory and model."""

import os
import platform
from collections.abc import Sequence

import torch
from torch import Tensor

from proxy.guard.answers import read_answers
from proxy.guard.attention import Attention
from proxy.guard.cache import Cache, Change, Grow, Move, OutOfMemory, Retire, Scrub
from proxy.guard.model import GuardModel
from proxy.guard.protocol import GuardError
from proxy.guard.ragged import RAGGED_TOKENS, suits
from proxy.guard.sequence import Chunk
from proxy.guard.settings import default_threads
from proxy.guard.shares import Shares, is_small
from proxy.guard.slab import Placed, Slab, place

FALLBACK_BUDGET_BYTES = 2 << 30
CPU_BUDGET_SHARE = 0.25


class Runner:
    """Owns the slabs' memory. Nothing here survives an error of the caller: positions come with every chunk."""

    def __init__(self, model: GuardModel) -> None:
        self.model = model
        self._slabs: dict[int, Slab] = {}
        self._is_small = is_small(model.architecture, model.embedding.element_size())
        self._shares = Shares(1)

    @property
    def vocabulary(self) -> int:
        return self.model.architecture.vocabulary

    @property
    def held_bytes(self) -> int:
        """Memory of the slabs."""
        return sum(slab.memory.nbytes for slab in self._slabs.values())

    @property
    def kv_bytes_per_token(self) -> int:
        return self.model.architecture.kv_bytes_per_token(self.model.embedding.element_size())

    def default_budget_bytes(self, share: float | None = None) -> int:
        """A share of the memory that is free now; without one a quarter: the rest of the machine has work too."""
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            return int(free * (CPU_BUDGET_SHARE if share is None else share))
        except ValueError:  # not every system counts its free pages
            return FALLBACK_BUDGET_BYTES

    @property
    def device_name(self) -> str:
        """What people call the device."""
        if self.model.device.type == "cuda":
            return torch.cuda.get_device_name(self.model.device)
        return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine())

    def tokens_in(self, budget_bytes: int) -> int:
        """The longest stream that a budget holds."""
        return budget_bytes // self.kv_bytes_per_token

    def new_cache(self, budget_bytes: int, window: int) -> Cache:
        """Accounting over memory that holds nothing yet. Raises ValueError for a budget below one window."""
        return Cache(bytes_per_token=self.kv_bytes_per_token, budget_bytes=budget_bytes, window=window)

    def use_threads(self, count: int | None) -> None:
        """How many cores a step may use; None: as is best. To be called in the thread that runs the engine."""
        count = count or self.best_threads
        shares = count if self._is_small else 1
        torch.set_num_threads(1 if shares > 1 else count)
        self._shares = Shares(shares, self.use_one_thread)

    @property
    def best_threads(self) -> int:
        """A small model's steps take more than one core only while everyone waits for them: they may have all."""
        return default_threads(spare=0 if self._is_small else 1)

    @staticmethod
    def use_one_thread() -> None:
        """For a process that will be forked, which must have no pool of threads, and for a thread beside others."""
        torch.set_num_threads(1)

    @staticmethod
    def has_gpu() -> bool:
        """Whether `device = "auto"` means a GPU. Does not touch it, so that the process can still be forked."""
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        return torch.cuda.is_available()

    def reset(self) -> None:
        self._slabs.clear()

    def prepare(self, changes: Sequence[Change]) -> None:
        """Bring memory to where the plan expects it. Raises OutOfMemory when the device has none left."""
        with torch.inference_mode():
            for change in changes:
                self._change(change)

    def run(self, chunks: Sequence[Chunk]) -> list[bytes | GuardError]:
        """One answer a chunk: a row for each of its reads, or a GuardFault when its numbers are not finite."""
        placed = place(chunks, RAGGED_TOKENS if suits(self.model) else 0)
        answers = self._shares.run(self._answers, placed)
        by_chunk = {id(at.chunk): answer for at, answer in zip(placed, answers, strict=True)}
        return [by_chunk[id(chunk)] for chunk in chunks]

    def _change(self, change: Change) -> None:
        match change:
            case Grow(slab, slots, capacity):
                try:
                    self._slabs[slab] = Slab(self.model, slots, capacity)
                except (RuntimeError, MemoryError) as exc:  # torch's own kinds of the former differ by device
                    raise OutOfMemory(f"no memory for {slots} streams of {capacity} tokens: {exc}") from exc
            case Retire(slab):
                del self._slabs[slab]
            case Scrub(slab, index):
                self._slabs[slab].memory[:, :, index].zero_()
            case Move((source, source_index), (target, target_index), length):
                tokens = self._slabs[source].memory[:, :, source_index, :, :length]
                self._slabs[target].memory[:, :, target_index, :, :length] = tokens

    def _answers(self, placed: list[Placed]) -> list[bytes | GuardError]:
        with torch.inference_mode():
            return read_answers(self.model, self._forward(placed), placed)

    def _forward(self, placed: list[Placed]) -> Tensor:
        device = self.model.device
        ids: list[int] = []
        positions: list[int] = []
        for at in placed:
            end = at.chunk.start + at.chunk.count
            ids += at.chunk.sequence.ids[at.chunk.start : end]
            positions += range(at.chunk.start, end)
        attend = Attention(self._slabs, placed, self.model)
        return self.model.forward(
            torch.tensor(ids, device=device), torch.tensor(positions, device=device), max(positions), attend
        )
