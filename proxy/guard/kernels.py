"""Triton kernels of the guard on a GPU. Imported only where they run: see `devices.make_runner`.

They compute what `model` and `attention` do, over pages (see `pages`) and with a grid that depends on
nothing but the shape of the batch, so that a CUDA graph can hold them. Norms, rotation and softmax are
float32 whatever the weights are. With TRITON_INTERPRET=1 set before this import they run on a CPU.

Memory of one layer is keys and values, each [pages, kv_heads, page_tokens, head_dim].
"""

import triton
import triton.language as tl

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
# The largest number of the e4m3 format.
FP8_MAX: tl.constexpr = tl.constexpr(448.0)
# The interpreter of triton 3.7 multiplies bfloat16 as integers and loses a carry when it rounds to e4m3.
IS_INTERPRETED: tl.constexpr = tl.constexpr(triton.knobs.runtime.interpret)
# x * SPLIT - (x * SPLIT - x) is x rounded to 4 bits, those of e4m3.
SPLIT: tl.constexpr = tl.constexpr(2.0**20 + 1.0)


# The number of rows differs from bucket to bucket: it must not mean another compilation.
@triton.jit(do_not_specialize=["rows"])
def norm_kernel(
    hidden, update, weight, normed, rows, size, floor, scale,
    HAS_UPDATE: tl.constexpr, HAS_WEIGHT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`hidden` += `update`; `normed` = `hidden` / rms(`hidden`) * `weight`, all [rows, size]; ROWS a program.

    `floor` is size * eps and `scale` size ** 0.5 where there is a weight: x / rms(x) is
    x * scale / sqrt(sum(x * x) + floor). Without a weight, the next matrix holds weight and scale.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    at = row.to(tl.int64)[:, None] * size + column[None, :]
    is_in = (row < rows)[:, None] & (column < size)[None, :]
    x = tl.load(hidden + at, mask=is_in, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        x += tl.load(update + at, mask=is_in, other=0.0).to(tl.float32)
        rounded = x.to(hidden.dtype.element_ty)
        tl.store(hidden + at, rounded, mask=is_in)
        x = rounded.to(tl.float32)
    y = x * (scale * tl.rsqrt(tl.sum(x * x, axis=1) + floor))[:, None]
    if HAS_WEIGHT:
        y *= tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)[None, :]
    tl.store(normed + at, y.to(normed.dtype.element_ty), mask=is_in)


@triton.jit(do_not_specialize=["total"])
def silu_kernel(gate_up, product, total, size, BLOCK: tl.constexpr):
    """`product` [rows, size] = silu(first half) * second half of `gate_up` [rows, 2 * size]; total = rows * size."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = at < total
    source = gate_up + at + at // size * size
    gate = tl.load(source, mask=is_in, other=0.0).to(tl.float32)
    up = tl.load(source + size, mask=is_in, other=0.0).to(tl.float32)
    y = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(product + at, y.to(product.dtype.element_ty), mask=is_in)


@triton.jit(do_not_specialize=["tokens"])
def write_kernel(  # long: one function, as a kernel is; a call within would cost the interpreter milliseconds
    qkv, queries, keys, values, norm, rotations, positions, places, scales, tokens, floor,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_TOKENS: tl.constexpr,
    ROWS: tl.constexpr, IS_FP8: tl.constexpr,
):  # fmt: skip
    """Norm and rotate q and k; write q to `queries` [tokens, heads, head_dim], k and v to their pages.

    A program takes ROWS rows of qkv [tokens * (heads + 2 * kv_heads), head_dim]. norm [heads + kv_heads,
    head_dim] float32; rotations [positions, head_dim / 2, 2] float32: a rotated pair is two neighbours.
    places [tokens]: page * PAGE_TOKENS + place in it, negative for padding; scales [2, kv_heads] float32,
    of keys and of values.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token = row // (HEADS + 2 * KV_HEADS)
    head = row % (HEADS + 2 * KV_HEADS)
    place = tl.load(places + token, mask=token < tokens, other=-1)
    is_row = place >= 0
    is_q = is_row & (head < HEADS)
    is_k = is_row & (head >= HEADS) & (head < HEADS + KV_HEADS)
    is_v = is_row & (head >= HEADS + KV_HEADS)
    column = tl.arange(0, HEAD_DIM)
    half = tl.arange(0, HEAD_DIM // 2)

    x = tl.load(qkv + row.to(tl.int64)[:, None] * HEAD_DIM + column[None, :], mask=is_row[:, None], other=0.0)
    x = x.to(tl.float32)
    weight = tl.load(norm + head[:, None] * HEAD_DIM + column[None, :], mask=(is_q | is_k)[:, None], other=0.0)
    normed = x * tl.rsqrt(tl.sum(x * x, axis=1) + floor)[:, None] * weight
    real, imaginary = tl.split(tl.reshape(normed, (ROWS, HEAD_DIM // 2, 2)))
    position = tl.load(positions + token, mask=is_row, other=0).to(tl.int64)
    turn = rotations + position[:, None] * HEAD_DIM + 2 * half[None, :]
    cosine = tl.load(turn, mask=is_row[:, None], other=0.0)
    sine = tl.load(turn + 1, mask=is_row[:, None], other=0.0)
    turned = tl.join(real * cosine - imaginary * sine, real * sine + imaginary * cosine)
    turned = tl.reshape(turned, (ROWS, HEAD_DIM))
    target = queries + (token.to(tl.int64) * HEADS + head)[:, None] * HEAD_DIM + column[None, :]
    tl.store(target, turned.to(queries.dtype.element_ty), mask=is_q[:, None])

    kv_head = tl.where(is_k, head - HEADS, head - HEADS - KV_HEADS)
    stored = tl.where(is_k[:, None], turned, x)
    if IS_FP8:
        kind = tl.where(is_k, 0, KV_HEADS)
        stored = stored / tl.load(scales + kind + kv_head, mask=is_k | is_v, other=1.0)[:, None]
        # Held within what e4m3 can say; NaN stays NaN, for comparisons with it are false.
        stored = tl.where(stored > FP8_MAX, FP8_MAX, stored)
        stored = tl.where(stored < -FP8_MAX, -FP8_MAX, stored)
        if IS_INTERPRETED:
            stored = stored * SPLIT - (stored * SPLIT - stored)
    page = (place // PAGE_TOKENS).to(tl.int64)
    line = (page * KV_HEADS + kv_head) * PAGE_TOKENS + place % PAGE_TOKENS
    target = line[:, None] * HEAD_DIM + column[None, :]
    stored = stored.to(keys.dtype.element_ty)
    tl.store(keys + target, stored, mask=is_k[:, None])
    tl.store(values + target, stored, mask=is_v[:, None])


@triton.jit
def attention_kernel(  # long: one function, as a kernel is; a call within would cost the interpreter milliseconds
    queries, mixed, keys, values, items, tables, scales,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_TOKENS: tl.constexpr,
    ROWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one stream's new tokens, over one key head: causal attention over the stream's pages.

    queries, mixed [T, heads, head_dim]; q carries the softmax scale. items [n, 4] int32: first row of the
    tile, its tokens (0: nothing to do), position of the first one, where the stream's pages begin in
    `tables`. The query heads of the key head are rows, so that its keys are read once: ROWS is at least
    tokens * (HEADS / KV_HEADS), and at least 16, the smallest tile of a tensor core.
    """
    item = items + 4 * tl.program_id(0)
    head = tl.program_id(1)
    count = tl.load(item + 1)
    if count == 0:
        return
    group: tl.constexpr = HEADS // KV_HEADS
    first = tl.load(item).to(tl.int64)
    start = tl.load(item + 2)
    pages = tables + tl.load(item + 3)
    end = start + count
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, HEAD_DIM)
    places = tl.arange(0, PAGE_TOKENS)
    is_row = rows // group < count
    row_at = ((first + rows // group) * HEADS + head * group + rows % group) * HEAD_DIM
    q = tl.load(queries + row_at[:, None] + columns[None, :], mask=is_row[:, None], other=0.0)
    if IS_INTERPRETED:
        q = q.to(tl.float32)
    positions = start + rows // group
    key_scale = tl.load(scales + head) * LOG2_E
    within = places[:, None] * HEAD_DIM + columns[None, :]
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.full((ROWS,), 0.0, tl.float32)
    sums = tl.full((ROWS, HEAD_DIM), 0.0, tl.float32)
    for base in range(0, end, PAGE_TOKENS):
        page = tl.load(pages + base // PAGE_TOKENS).to(tl.int64)
        offset = (page * KV_HEADS + head) * (PAGE_TOKENS * HEAD_DIM)
        # Places behind the stream's end hold anything, NaN included, and nothing times NaN is still NaN.
        is_held = (base + places < end)[:, None]
        k = tl.load(keys + offset + within, mask=is_held, other=0.0).to(q.dtype)
        v = tl.load(values + offset + within, mask=is_held, other=0.0).to(q.dtype)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * key_scale
        scores = tl.where(positions[:, None] >= base + places[None, :], scores, float("-inf"))
        # Never -inf: the first page begins with a token that every row may see.
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        weights = tl.exp2(scores - higher[:, None])
        decay = tl.exp2(highest - higher)
        total = total * decay + tl.sum(weights, axis=1)
        sums = sums * decay[:, None]
        sums = tl.dot(weights.to(q.dtype), v, acc=sums, input_precision=PRECISION)
        highest = higher
    y = sums * (tl.load(scales + KV_HEADS + head) / total)[:, None]
    tl.store(mixed + row_at[:, None] + columns[None, :], y.to(mixed.dtype.element_ty), mask=is_row[:, None])
