"""The runner of a GPU: pages instead of slots, padded buckets, a CUDA graph each. The twin of `runner.Runner`.

A step is one copy to the device, one graph (or the same calls one by one), one copy back. On a CPU, under
Triton's interpreter, all of it runs but the graphs.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from proxy.guard.cache import Change, Copy
from proxy.guard.limits import Limits
from proxy.guard.model import GuardModel
from proxy.guard.packing import OUTPUT_WIDTH, Layout, bucket_sizes, clear, pack, split, unpack
from proxy.guard.paged_model import FP8, PagedMemory, PagedModel, tiles_of
from proxy.guard.pages import PAGE_TOKENS, PageCache, pages_for
from proxy.guard.protocol import GuardError, GuardOutOfMemory, GuardUnavailable
from proxy.guard.sequence import Chunk
from proxy.guard.settings import default_threads

# Of the memory that is free once the weights are there; the rest is for a step's intermediate results.
BUDGET_SHARE = 0.9
# Without a GPU this runner is for tests: what it takes is small.
CPU_BUDGET_BYTES = 64 << 20


class PagedRunner:
    """Owns the pool of pages and the graphs. Both are made in `new_cache` and live as long as the runner."""

    def __init__(
        self, model: GuardModel, *, limits: Limits | None = None, kv_dtype: str = "auto", cuda_graphs: bool = True
    ) -> None:
        """`kv_dtype` is "auto" (the model's own) or "fp8"; the largest step follows from `limits`."""
        limits = limits or Limits()
        self.model = model
        self._dtype = FP8 if kv_dtype == "fp8" else model.dtype
        self._has_graphs = cuda_graphs and model.device.type == "cuda"
        self._tiles = tiles_of(model)
        sizes = bucket_sizes(limits.step + limits.piece)
        self._layouts = {size: Layout.of(size, self._tiles) for size in sizes}
        self._most_tokens = sizes[-1]
        self._most_pages = 0
        self._memory: PagedMemory | None = None
        self._window = 0
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    @property
    def vocabulary(self) -> int:
        return self.model.architecture.vocabulary

    @property
    def held_bytes(self) -> int:
        """Memory of the pool."""
        return self._memory.pages * PAGE_TOKENS * self.kv_bytes_per_token if self._memory is not None else 0

    @property
    def kv_bytes_per_token(self) -> int:
        return self.model.architecture.kv_bytes_per_token(self._dtype.itemsize)

    def default_budget_bytes(self, share: float | None = None) -> int:
        if self.model.device.type != "cuda":
            return CPU_BUDGET_BYTES
        # What torch keeps for later counts as free: it is given back before a pool that needs it.
        spare = torch.cuda.memory_reserved(self.model.device) - torch.cuda.memory_allocated(self.model.device)
        return int((torch.cuda.mem_get_info(self.model.device)[0] + spare) * (BUDGET_SHARE if share is None else share))

    def tokens_in(self, budget_bytes: int) -> int:
        """Tokens of whole pages."""
        return budget_bytes // (PAGE_TOKENS * self.kv_bytes_per_token) * PAGE_TOKENS

    def use_threads(self, count: int | None) -> None:
        """Threads of an operation on the host. To be called in the thread that runs the engine."""
        torch.set_num_threads(count or default_threads())

    def new_cache(self, budget_bytes: int, window: int) -> PageCache:
        """Accounting over empty memory. The first time: take the pool, compile the kernels, capture the graphs.

        That takes seconds on a GPU. Raises ValueError for a budget below one window, GuardOutOfMemory.
        """
        cache = PageCache(bytes_per_token=self.kv_bytes_per_token, budget_bytes=budget_bytes, window=window)
        memory = self._memory
        if memory is None or memory.pages != cache.page_count or self._window != window:
            self._graphs.clear()
            self._memory = None
            with self._on_device():
                self._build(cache.page_count, window)
        return cache

    def reset(self) -> None:
        """Nothing to drop: no kernel reads what the new owner of a page did not write."""

    def prepare(self, changes: Sequence[Change]) -> None:
        """Bring memory to where the plan expects it."""
        assert self._memory is not None
        with self._on_device():
            for change in changes:
                assert isinstance(change, Copy)
                self._memory.copy(change.source, change.target, change.length)

    def run(self, chunks: Sequence[Chunk]) -> list[bytes | GuardError]:
        """One answer a chunk: a row for each of its reads, or a GuardFault when its numbers are not finite.

        Raises GuardOutOfMemory, and GuardUnavailable when the device itself fails.
        """
        answers: list[bytes | GuardError] = []
        with self._on_device():
            for batch in split(chunks, self._most_tokens, self._most_pages):
                answers += self._run(batch)
        return answers

    def _run(self, batch: Sequence[Chunk]) -> list[bytes | GuardError]:
        tokens = sum(chunk.count for chunk in batch)
        layout = next(layout for size, layout in self._layouts.items() if size >= tokens)
        packed = pack(batch, layout, self._tiles, self._sent.numpy())
        self._inputs[: packed.used].copy_(self._sent[: packed.used], non_blocking=True)
        if layout.tokens in self._graphs:
            graph, outputs = self._graphs[layout.tokens]
            graph.replay()
        else:
            outputs = self._paged.forward(layout)
        received = self._received[:tokens]
        received.copy_(outputs[:tokens], non_blocking=True)
        self._wait()
        return unpack(received.numpy(), packed)

    def _build(self, pages: int, window: int) -> None:
        device, has_pins = self.model.device, self.model.device.type == "cuda"
        # A batch in which nobody shares fits; one with much sharing may become two.
        self._most_pages = pages + pages_for(window)
        numbers = self._layouts[self._most_tokens].tables + self._most_pages
        self._memory = PagedMemory(self.model, pages, self._dtype)
        self._window = window
        self._inputs = torch.zeros(numbers, dtype=torch.int32, device=device)
        self._sent = torch.zeros(numbers, dtype=torch.int32, pin_memory=has_pins)
        self._received = torch.zeros((self._most_tokens, OUTPUT_WIDTH), pin_memory=has_pins)
        self._paged = PagedModel(self.model, self._memory, self._inputs, window)
        if self._has_graphs:
            self._capture()

    def _capture(self) -> None:
        """One graph a bucket, the largest first: the others then live in the memory that it took."""
        pool = torch.cuda.graph_pool_handle()
        for size, layout in reversed(self._layouts.items()):
            clear(layout, self._sent.numpy())
            self._inputs.copy_(self._sent)
            # Compiles kernels and lets libraries take their workspace: neither may happen in a capture.
            self._paged.forward(layout)
            self._wait()
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                outputs = self._paged.forward(layout)
            self._graphs[size] = (graph, outputs)

    def _wait(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    @contextlib.contextmanager
    def _on_device(self) -> Iterator[None]:
        device = torch.cuda.device(self.model.device) if self.model.device.type == "cuda" else contextlib.nullcontext()
        try:
            with device, torch.inference_mode():
                yield
        except torch.OutOfMemoryError as exc:
            # What the failed step left behind must not fail the next one too.
            torch.cuda.empty_cache()
            raise GuardOutOfMemory("the GPU has no memory left for this step") from exc
        except torch.AcceleratorError as exc:
            # Mostly it stays broken for the whole process: a crash of the engine, not a fault of the input.
            raise GuardUnavailable(f"the GPU failed: {exc}") from exc
