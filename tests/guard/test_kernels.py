"""Each kernel beside a few lines of plain torch: on a GPU if there is one, else in triton's interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from proxy.guard import kernels
from proxy.guard.paged_model import FP8, power_of_two
from proxy.guard.pages import PAGE_TOKENS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
ROOT = Path(__file__).parent.parent.parent
# What one program of an H100 may have.
MOST_SHARED_BYTES = 227 << 10

both_types = pytest.mark.parametrize("dtype", TOLERANCES, ids=["float32", "bfloat16"])


def noise(*size: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def is_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    return torch.allclose(found.float(), expected.float(), atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


@both_types
@pytest.mark.parametrize("rows_a_program", [1, 4])
@pytest.mark.parametrize("has_update", [False, True])
def test_norm(dtype: torch.dtype, rows_a_program: int, has_update: bool) -> None:
    rows, size, eps = 5, 48, 1e-6
    hidden, update, weight = noise(rows, size, dtype=dtype), noise(rows, size, seed=1, dtype=dtype), noise(size)
    weight = weight.to(dtype)
    total = hidden + update if has_update else hidden.clone()
    normed = torch.empty_like(hidden)
    kernels.norm_kernel[(-(-rows // rows_a_program),)](
        hidden, update, weight, normed, rows, size, size * eps, size**0.5,
        HAS_UPDATE=has_update, HAS_WEIGHT=True, ROWS=rows_a_program, COLUMNS=64,
    )  # fmt: skip
    assert is_close(hidden, total, dtype)
    assert is_close(normed, functional.rms_norm(total.float(), (size,), weight.float(), eps), dtype)


def test_norm_without_a_weight_leaves_its_scale_to_the_matrix() -> None:
    hidden = noise(3, 48)
    normed = torch.empty_like(hidden)
    kernels.norm_kernel[(3,)](
        hidden, hidden, hidden, normed, 3, 48, 48e-6, 1.0, HAS_UPDATE=False, HAS_WEIGHT=False, ROWS=1, COLUMNS=64
    )
    assert is_close(normed * 48**0.5, functional.rms_norm(hidden, (48,), eps=1e-6), torch.float32)


@both_types
def test_silu(dtype: torch.dtype) -> None:
    gate_up = noise(5, 2 * 40, dtype=dtype)
    product = gate_up.new_empty((5, 40))
    kernels.silu_kernel[(4,)](gate_up, product, 5 * 40, 40, BLOCK=64)
    gate, up = gate_up.float().chunk(2, dim=1)
    assert is_close(product, functional.silu(gate) * up, dtype)


class Written:
    """What the write kernel makes of a batch of three tokens and one row of padding."""

    heads, kv_heads, head_dim, tokens = 4, 2, 16, 4

    def __init__(self, dtype: torch.dtype, kv_dtype: torch.dtype, qkv: Tensor, rows: int = 8) -> None:
        self.qkv = qkv
        self.norm = 1 + noise(self.heads + self.kv_heads, self.head_dim, seed=1).abs()
        angles = noise(100, self.head_dim // 2, seed=2)
        self.rotations = torch.polar(torch.ones_like(angles), angles)
        self.positions = torch.tensor([63, 64, 7, 0], dtype=torch.int32, device=DEVICE)
        self.places = torch.tensor([2 * 64 + 63, 0, 64 + 7, -1], dtype=torch.int32, device=DEVICE)
        self.scales = torch.tensor([[0.1, 0.2], [0.05, 0.4]], device=DEVICE)
        self.queries = torch.zeros((self.tokens, self.heads, self.head_dim), dtype=dtype, device=DEVICE)
        pool = torch.zeros((2, 3, self.kv_heads, PAGE_TOKENS, self.head_dim), dtype=kv_dtype, device=DEVICE)
        self.keys, self.values = pool
        lines = self.tokens * (self.heads + 2 * self.kv_heads)
        kernels.write_kernel[(-(-lines // rows),)](
            qkv, self.queries, self.keys, self.values, self.norm, torch.view_as_real(self.rotations).contiguous(),
            self.positions, self.places, self.scales, self.tokens, self.head_dim * 1e-6,
            HEADS=self.heads, KV_HEADS=self.kv_heads, HEAD_DIM=self.head_dim, PAGE_TOKENS=PAGE_TOKENS, ROWS=rows,
            IS_FP8=kv_dtype == FP8,
        )  # fmt: skip

    def expected(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of the three tokens."""
        qk_heads = self.heads + self.kv_heads
        qkv = self.qkv.view(self.tokens, qk_heads + self.kv_heads, self.head_dim).float()[:3]
        qk = functional.normalize(qkv[:, :qk_heads], dim=-1) * self.norm
        pairs = torch.view_as_complex(qk.reshape(3, qk_heads, -1, 2)) * self.rotations[self.positions[:3].long(), None]
        qk = torch.view_as_real(pairs).flatten(2)
        return qk[:, : self.heads], qk[:, self.heads :], qkv[:, qk_heads:]

    def stored(self, memory: Tensor) -> Tensor:
        """What lies in the three tokens' places."""
        places = self.places[:3].long()
        return memory.float()[places // PAGE_TOKENS, :, places % PAGE_TOKENS]


@both_types
@pytest.mark.parametrize("rows", [8, 64])
def test_write(dtype: torch.dtype, rows: int) -> None:
    written = Written(dtype, dtype, noise(4, 8 * 16, dtype=dtype), rows)
    q, k, v = written.expected()
    assert is_close(written.queries[:3], q, dtype)
    assert is_close(written.stored(written.keys), k, dtype)
    assert is_close(written.stored(written.values), v, dtype)
    assert not written.queries[3].any()
    assert sum(int(memory.float().abs().sum(-1).count_nonzero()) for memory in (written.keys, written.values)) == 12


def test_write_in_eight_bits_rounds_to_the_nearest_and_holds_at_the_largest() -> None:
    qkv = noise(4, 8, 16)
    qkv[0, 6, 0], qkv[0, 6, 1] = 1e6, -1e6
    written = Written(torch.float32, FP8, qkv)
    _, k, v = written.expected()
    for memory, expected, scales in ((written.keys, k, written.scales[0]), (written.values, v, written.scales[1])):
        found = written.stored(memory)
        nearest = (expected / scales[:, None]).clamp(-448, 448).to(FP8).float()
        assert torch.allclose(found, nearest, rtol=0.13, atol=2**-9)  # at most the next number
        assert float((found == nearest).float().mean()) > 0.97
    assert written.stored(written.values)[0, 0, :2].tolist() == [448, -448]


# A fault of the interpreter, not of the kernel that it runs.
@pytest.mark.skipif(DEVICE == "cpu", reason="triton's interpreter turns NaN into a number of e4m3; a GPU does not")
def test_nan_in_eight_bits_stays_nan() -> None:
    qkv = noise(4, 8, 16)
    qkv[1, 7, 3] = float("nan")
    written = Written(torch.float32, FP8, qkv)
    assert written.stored(written.values)[1, 1, 3].isnan()


Item = tuple[int, int, int, int]  # first row, tokens, position of the first, where its pages begin in TABLES
TABLES = [3, 0, 4, 1, 0, 2]
ITEMS = {
    "one token": [(0, 1, 0, 0)],
    "one token later": [(0, 1, 130, 0)],
    "a page to its end": [(0, 4, 60, 3)],
    "across pages": [(0, 8, 60, 0)],
    "several streams, some with the same page, and nothing": [
        (2, 1, 63, 3),
        (0, 2, 64, 1),
        (9, 0, 0, 0),
        (5, 8, 90, 0),
    ],
}


def attend(q: Tensor, keys: Tensor, values: Tensor, item: Item) -> Tensor:
    """One item's attention: gather, mask, softmax."""
    first, count, start, begin = item
    pages = torch.tensor(TABLES[begin:], device=DEVICE)[: -(-(start + count) // PAGE_TOKENS)]
    k, v = (memory[pages].transpose(0, 1).flatten(1, 2)[:, : start + count].float() for memory in (keys, values))
    group = q.shape[1] // k.shape[0]
    mask = torch.ones((count, start + count), dtype=torch.bool, device=DEVICE).tril(start)
    return functional.scaled_dot_product_attention(
        q[first : first + count].transpose(0, 1).float(), k.repeat_interleave(group, 0), v.repeat_interleave(group, 0),
        attn_mask=mask, scale=1.0,
    ).transpose(0, 1)  # fmt: skip


@both_types
@pytest.mark.parametrize("items", ITEMS.values(), ids=list(ITEMS))
@pytest.mark.parametrize(("heads", "kv_heads", "rows"), [(4, 2, 16), (3, 1, 32), (8, 8, 16)])
def test_attention(dtype: torch.dtype, items: list[Item], heads: int, kv_heads: int, rows: int) -> None:
    run_attention(dtype, dtype, items, heads, kv_heads, rows)


def test_attention_over_eight_bits() -> None:
    run_attention(torch.bfloat16, FP8, ITEMS["across pages"], 4, 2, 16)
    run_attention(torch.float32, FP8, ITEMS["across pages"], 4, 2, 16)


def run_attention(
    dtype: torch.dtype, kv_dtype: torch.dtype, items: list[Item], heads: int, kv_heads: int, rows: int
) -> None:  # fmt: skip
    queries = noise(16, heads, 16, dtype=dtype)
    keys, values = (noise(5, kv_heads, PAGE_TOKENS, 16, seed=seed).to(kv_dtype) for seed in (1, 2))
    scales = torch.rand((2, kv_heads), generator=torch.Generator().manual_seed(3)).to(DEVICE) + 0.5
    # What a stream did not write may be anything.
    longest = max(start + count for _, count, start, _ in items)
    if len(items) == 1 and longest % PAGE_TOKENS:
        last = TABLES[items[0][3] + longest // PAGE_TOKENS]
        for memory in (keys, values):
            memory[last, :, longest % PAGE_TOKENS :] = float("nan")
    mixed = torch.full_like(queries, 7.0)
    kernels.attention_kernel[(len(items), kv_heads)](
        queries, mixed, keys, values, torch.tensor(items, dtype=torch.int32, device=DEVICE),
        torch.tensor(TABLES, dtype=torch.int32, device=DEVICE), scales,
        HEADS=heads, KV_HEADS=kv_heads, HEAD_DIM=16, PAGE_TOKENS=PAGE_TOKENS, ROWS=rows,
        PRECISION="ieee" if dtype == torch.float32 else "tf32",
    )  # fmt: skip
    is_touched = torch.zeros(16, dtype=torch.bool, device=DEVICE)
    for item in items:
        tokens = slice(item[0], item[0] + item[1])
        is_touched[tokens] = True
        k, v = (memory.float() * scale.view(-1, 1, 1) for memory, scale in zip((keys, values), scales, strict=True))
        if item[1]:
            assert is_close(mixed[tokens], attend(queries, k, v, item), dtype)
    assert bool((mixed[~is_touched] == 7).all())


def test_every_kernel_compiles_for_an_h100_within_its_registers_and_shared_memory() -> None:
    shapes = ["0.6b", "4b", "8b"] if os.environ.get("WEIR_LONG") else ["0.6b"]
    command = [sys.executable, "-m", "tests.guard.compiled", "--json", *shapes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {one["shape"] for one in found} == set(shapes)
    for one in found:
        assert one["shared_bytes"] <= MOST_SHARED_BYTES, one
        # Float32 is for comparing numbers, not for serving.
        assert one["stack_bytes"] <= (64 if one["types"] == "fp32" else 0), one


def test_sizes_of_tiles() -> None:
    assert [power_of_two(size) for size in (1, 2, 3, 16, 2560)] == [1, 2, 4, 16, 4096]
