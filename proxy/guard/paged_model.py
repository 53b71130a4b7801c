"""The guard's forward pass on a GPU: the weights of `model.GuardModel`, over pages, with the kernels of `kernels`.

Shapes depend on the bucket alone (see `packing`), so a whole pass can be captured in a CUDA graph.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from proxy.guard import kernels
from proxy.guard.architecture import Architecture
from proxy.guard.model import GuardModel, Layer, linear
from proxy.guard.packing import ITEM_INTS, Layout, Tiles
from proxy.guard.pages import PAGE_TOKENS
from proxy.guard.protocol import GuardUnavailable

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
# Rows of an attention tile: the query heads of one key head, for each token. 16 is the least that a tensor
# core takes, which is what single tokens want; a long chunk reads its past once for each tile.
SMALL_ROWS = 16
LARGE_ROWS = 128
# Exact float32 products are made without tensor cores, and the numbers of a bigger tile do not fit the registers.
EXACT_ROWS = 32
# Standard deviations of a value that e4m3 can say: past anything seen, and 512 times less is still precise.
VALUE_DEVIATIONS = 56.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How much one program of the small kernels takes."""

    norm_rows: int = 1
    write_rows: int = 8
    silu_block: int = 1024


# The interpreter pays for programs, a GPU for registers.
INTERPRETED = Launch(64, 1024, 1 << 16)


class PagedMemory:
    """All pages: `keys` and `values` of a layer, each [pages, kv_heads, PAGE_TOKENS, head_dim]."""

    def __init__(self, model: GuardModel, pages: int, dtype: torch.dtype) -> None:
        shape = model.architecture
        size = (shape.layers, 2, pages, shape.kv_heads, PAGE_TOKENS, shape.head_dim)
        self._pool = torch.zeros(size, dtype=dtype, device=model.device)
        self.pages = pages
        self.layers: list[tuple[Tensor, Tensor]] = [(layer[0], layer[1]) for layer in self._pool]
        self.scales = storage_scales(model, dtype)

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` tokens of a page to another, in all layers."""
        # As bytes: not every device copies 8-bit floats.
        pool = self._pool.view(torch.uint8)
        pool[:, :, target, :, :length].copy_(pool[:, :, source, :, :length])


def storage_scales(model: GuardModel, dtype: torch.dtype) -> Tensor:
    """What stored keys and values are multiplied with when read: float32 [layers, 2, kv_heads]; 1 but for fp8.

    They follow from the weights alone, so no text is needed to find them: a key is normed, so its largest
    number is known; a value's deviation is about the norm of its row of the projection.
    """
    shape = model.architecture
    found = torch.ones((shape.layers, 2, shape.kv_heads), device=model.device)
    if dtype != FP8:
        return found
    for index, layer in enumerate(model.layers):
        found[index, 0] = layer.qk_norm[shape.heads :].abs().amax(dim=1) / FP8_MAX
        assert isinstance(layer.qkv, Tensor)  # 8-bit matrices are for CPUs
        rows = layer.qkv[(shape.heads + shape.kv_heads) * shape.head_dim :].float()
        # A folded matrix holds the norm's weight and hidden ** 0.5 already.
        rows = rows * layer.input_norm.float() if layer.input_norm is not None else rows / shape.hidden**0.5
        deviation = rows.view(shape.kv_heads, -1).norm(dim=1) / shape.head_dim**0.5
        found[index, 1] = deviation * VALUE_DEVIATIONS / FP8_MAX
    return found.clamp_(min=torch.finfo(torch.float32).tiny)


def tile_rows(shape: Architecture, dtype: torch.dtype, device: str) -> tuple[int, int]:
    """Rows of the attention's small and large tiles."""
    large = EXACT_ROWS if dtype == torch.float32 and device == "cuda" else LARGE_ROWS
    group = power_of_two(shape.heads // shape.kv_heads)
    return max(SMALL_ROWS, group), max(large, group)


def tiles_of(model: GuardModel) -> Tiles:
    shape = model.architecture
    small, large = tile_rows(shape, model.dtype, model.device.type)
    group = shape.heads // shape.kv_heads
    return Tiles(small // group, large // group)


def attention_options(rows: int, dtype: torch.dtype) -> dict[str, int]:
    """Warps and pipeline stages of an attention program."""
    if dtype == torch.float32:
        return {"num_warps": 4 if rows == SMALL_ROWS else 8, "num_stages": 2}
    # Page numbers are a load before the load: five stages are two pages on their way while one is computed.
    return {"num_warps": 4, "num_stages": 5} if rows < LARGE_ROWS else {"num_warps": 8, "num_stages": 3}


def write_constants(shape: Architecture, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "HEADS": shape.heads,
        "KV_HEADS": shape.kv_heads,
        "HEAD_DIM": shape.head_dim,
        "PAGE_TOKENS": PAGE_TOKENS,
        "IS_FP8": dtype == FP8,
    }


def attention_constants(shape: Architecture, dtype: torch.dtype, rows: int) -> dict[str, Any]:
    return {
        "HEADS": shape.heads,
        "KV_HEADS": shape.kv_heads,
        "HEAD_DIM": shape.head_dim,
        "PAGE_TOKENS": PAGE_TOKENS,
        "ROWS": rows,
        # Weights in float32 are there for exact numbers; tensor cores would round to 10 bits.
        "PRECISION": "ieee" if dtype == torch.float32 else "tf32",
    }


class PagedModel:
    """Runs one bucket's batch. Reads its inputs from a buffer that stays where it is."""

    def __init__(
        self, model: GuardModel, memory: PagedMemory, inputs: Tensor, window: int, launch: Launch | None = None
    ) -> None:
        """`inputs`: int32, laid out by `packing.Layout`. Raises GuardUnavailable for a head size without kernels."""
        shape = model.architecture
        if shape.head_dim < 16 or shape.head_dim & (shape.head_dim - 1):
            raise GuardUnavailable(f"head_dim {shape.head_dim}: on a GPU it must be a power of two from 16 on")
        self._model, self._memory, self._inputs = model, memory, inputs
        self._launch = launch or (Launch() if model.device.type == "cuda" else INTERPRETED)
        self._rotations = torch.view_as_real(model.rotations(window)).contiguous()
        self._kv_dtype = memory.layers[0][0].dtype
        self._head_floor = shape.head_dim * shape.norm_eps

    def forward(self, layout: Layout) -> Tensor:
        """The batch in the inputs -> float32 [tokens of the bucket, packing.OUTPUT_WIDTH]."""
        model, shape = self._model, self._model.architecture
        hidden = functional.embedding(self._inputs[: layout.tokens], model.embedding)
        queries = hidden.new_empty((layout.tokens, shape.heads * shape.head_dim))
        # Zeros: rows of padding are read by the next matrix, and memory may hold NaN.
        mixed = torch.zeros_like(queries)
        update = None
        for index, layer in enumerate(model.layers):
            normed = self._norm(hidden, update, layer.input_norm)
            qkv = linear(normed, layer.qkv, layer.qkv_bias)
            self._write(index, layer, qkv, queries, layout)
            self._attend(index, queries, mixed, layout)
            update = linear(mixed, layer.output, layer.output_bias)
            normed = self._norm(hidden, update, layer.post_norm)
            update = linear(self._silu(linear(normed, layer.gate_up)), layer.down)
        final = self._norm(hidden, update, model.final_norm)
        # Both roles' heads for every row: next to the layers they are nothing, and the shape stays the bucket's.
        finite = final.sum(dim=1, keepdim=True, dtype=torch.float32)
        roles = [model.probabilities(final, heads) for heads in (model.response, model.prompt)]
        return torch.cat((finite, *roles), dim=1)

    def _norm(self, hidden: Tensor, update: Tensor | None, weight: Tensor | None) -> Tensor:
        """hidden += update, in place; returns hidden normed."""
        rows, size = hidden.shape
        normed = torch.empty_like(hidden)
        kernels.norm_kernel[(blocks(rows, self._launch.norm_rows),)](
            hidden, hidden if update is None else update, hidden if weight is None else weight, normed,
            rows, size, size * self._model.architecture.norm_eps, 1.0 if weight is None else size**0.5,
            HAS_UPDATE=update is not None, HAS_WEIGHT=weight is not None,
            ROWS=self._launch.norm_rows, COLUMNS=power_of_two(size), num_warps=norm_warps(size),
        )  # fmt: skip
        return normed

    def _silu(self, gate_up: Tensor) -> Tensor:
        rows, size = gate_up.shape[0], gate_up.shape[1] // 2
        product = gate_up.new_empty((rows, size))
        grid = (blocks(rows * size, self._launch.silu_block),)
        kernels.silu_kernel[grid](gate_up, product, rows * size, size, BLOCK=self._launch.silu_block, num_warps=4)
        return product

    def _write(self, index: int, layer: Layer, qkv: Tensor, queries: Tensor, layout: Layout) -> None:
        keys, values = self._memory.layers[index]
        positions, places = self._inputs[layout.positions :], self._inputs[layout.places :]
        rows = layout.tokens * (qkv.shape[1] // self._model.architecture.head_dim)
        kernels.write_kernel[(blocks(rows, self._launch.write_rows),)](
            qkv, queries, keys, values, layer.qk_norm, self._rotations, positions, places,
            self._memory.scales[index], layout.tokens, self._head_floor,
            **write_constants(self._model.architecture, self._kv_dtype), ROWS=self._launch.write_rows, num_warps=4,
        )  # fmt: skip

    def _attend(self, index: int, queries: Tensor, mixed: Tensor, layout: Layout) -> None:
        """Short chunks, then tiles of long ones. A bucket that has no room for one kind does not launch it."""
        shape = self._model.architecture
        keys, values = self._memory.layers[index]
        scales = self._memory.scales[index]
        tables = self._inputs[layout.tables :]
        small_rows, large_rows = tile_rows(shape, queries.dtype, queries.device.type)
        kinds = ((layout.small, layout.small_items, small_rows), (layout.large, layout.large_items, large_rows))
        for start, count, rows in kinds:
            if count:
                items = self._inputs[start : start + ITEM_INTS * count]
                kernels.attention_kernel[(count, shape.kv_heads)](
                    queries, mixed, keys, values, items, tables, scales,
                    **attention_constants(shape, queries.dtype, rows), **attention_options(rows, queries.dtype),
                )  # fmt: skip


def norm_warps(size: int) -> int:
    return 4 if size <= 1024 else 8


def blocks(count: int, size: int) -> int:
    return -(-count // size)


def power_of_two(count: int) -> int:
    """The smallest one that is not below `count`."""
    return 1 << (count - 1).bit_length()
