"""A step's chunks -> one buffer of numbers for the device, and what comes back -> one answer a chunk. No torch here.

A step on a GPU is padded to one of a few sizes (buckets), so that each can be a CUDA graph. Everything that
differs between two steps of a bucket lies in one int32 buffer, which is one copy to the device.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from proxy.guard.pages import PAGE_TOKENS, Table
from proxy.guard.protocol import GuardError, GuardFault
from proxy.guard.rows import CATEGORIES, LEVELS, SUMS
from proxy.guard.sequence import Chunk
from proxy.risk import Role

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

# Triton compiles a kernel anew for pointers that are not 16-byte aligned.
ALIGNED_INTS = 4
ITEM_INTS = 4  # first row, tokens, position of the first, where the stream's pages begin
WIDTHS = {role: LEVELS + len(names) for role, names in CATEGORIES.items()}
# A row of output: a number that is finite only if the whole token is, the response heads', the prompt heads'.
OUTPUTS = {Role.ASSISTANT: slice(1, 1 + WIDTHS[Role.ASSISTANT]), Role.USER: slice(1 + WIDTHS[Role.ASSISTANT], None)}
OUTPUT_WIDTH = 1 + sum(WIDTHS.values())


@dataclass(frozen=True, slots=True)
class Tiles:
    """How many tokens one program of the attention takes, of a short chunk and of a long one."""

    small: int
    large: int

    @property
    def least(self) -> int:
        """Tokens of long chunks that a large tile has at least, on average."""
        return max(1, min(self.small + 1, (self.large + 1) // 2))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a bucket's inputs lie in the buffer. Any batch of at most `tokens` tokens has room."""

    tokens: int
    positions: int
    places: int
    small: int
    small_items: int
    large: int
    large_items: int
    tables: int  # the rest of the buffer

    @staticmethod
    def of(tokens: int, tiles: Tiles) -> "Layout":
        width = _aligned(tokens)
        large_items = tokens // tiles.least if tokens > tiles.small else 0
        small = 3 * width
        large = small + ITEM_INTS * tokens
        return Layout(tokens, width, 2 * width, small, tokens, large, large_items, large + ITEM_INTS * large_items)


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch in the buffer."""

    chunks: Sequence[Chunk]
    firsts: Ints  # row of each chunk's first token
    tokens: int
    used: int  # numbers of the buffer


def bucket_sizes(most: int) -> list[int]:
    """Powers of two, from 128 on the middles between them too, up to `most` tokens (included)."""
    sizes, size = [], 1
    while size < most:
        sizes.append(size)
        if size >= 128 and size * 3 // 2 < most:
            sizes.append(size * 3 // 2)
        size *= 2
    return [*sizes, most]


def split(chunks: Sequence[Chunk], most_tokens: int, most_pages: int) -> Iterator[Sequence[Chunk]]:
    """Batches that fit the buffers, in order: nearly always one."""
    begin = tokens = pages = 0
    for index, chunk in enumerate(chunks):
        tokens += chunk.count
        pages += len(chunk.sequence.slot.pages)
        if index > begin and (tokens > most_tokens or pages > most_pages):
            yield chunks[begin:index]
            begin, tokens, pages = index, chunk.count, len(chunk.sequence.slot.pages)
    yield chunks[begin:]


def pack(chunks: Sequence[Chunk], layout: Layout, tiles: Tiles, buffer: Ints) -> Packed:
    """Write a batch into `buffer` as `layout` says; what it leaves over becomes padding."""
    ids: list[int] = []
    tables = array("i")
    offsets = []
    for chunk in chunks:
        table: Table = chunk.sequence.slot
        ids += chunk.sequence.ids[chunk.start : chunk.start + chunk.count]
        offsets.append(len(tables))
        tables.extend(table.pages)
    counts = np.array([chunk.count for chunk in chunks], np.int32)
    starts = np.array([chunk.start for chunk in chunks], np.int32)
    firsts = (np.cumsum(counts) - counts).astype(np.int32)
    items = np.stack((firsts, counts, starts, np.array(offsets, np.int32)), axis=1)
    tokens = len(ids)
    positions = np.arange(tokens, dtype=np.int32) - np.repeat(firsts - starts, counts)
    page_numbers = np.frombuffer(tables, np.int32)
    page_of = page_numbers[np.repeat(items[:, 3], counts) + positions // PAGE_TOKENS]

    clear(layout, buffer)
    buffer[:tokens] = ids
    buffer[layout.positions : layout.positions + tokens] = positions
    buffer[layout.places : layout.places + tokens] = page_of * PAGE_TOKENS + positions % PAGE_TOKENS
    is_small = counts <= tiles.small
    _put(buffer, layout.small, items[is_small])
    _put(buffer, layout.large, _cut(items[~is_small], tiles.large))
    used = layout.tables + len(page_numbers)
    buffer[layout.tables : used] = page_numbers
    return Packed(chunks, firsts, tokens, used)


def clear(layout: Layout, buffer: Ints) -> None:
    """A batch of padding alone: rows that are computed and belong to nobody."""
    buffer[: layout.tables] = 0
    buffer[layout.places : layout.small] = -1


def unpack(outputs: Floats, packed: Packed) -> list[bytes | GuardError]:
    """outputs [tokens, OUTPUT_WIDTH] -> for each chunk the rows of its reads (see `rows`), or a GuardFault.

    A chunk whose numbers are not finite is a fault even where nothing is read: its keys are in the cache.
    """
    finite = np.logical_and.reduceat(np.isfinite(outputs[:, 0]), packed.firsts).tolist()
    roles = {chunk.job.role for chunk in packed.chunks}
    found = {role: _Rows(outputs[:, OUTPUTS[role]]) for role in roles}
    return [
        found[chunk.job.role].answer(chunk, first) if is_finite else GuardFault("the guard's numbers are not finite")
        for chunk, first, is_finite in zip(packed.chunks, packed.firsts.tolist(), finite, strict=True)
    ]


class _Rows:
    """One role's rows of a batch. A step has a thousand chunks: each is a slice of one block of bytes."""

    def __init__(self, rows: Floats) -> None:
        sums = rows.sum(axis=1)
        self._good = (sums > SUMS[0]) & (sums < SUMS[1])  # NaN compares false with everything
        self._are_good = bool(self._good.all())
        self._data = rows.tobytes()
        self._bytes = rows.shape[1] * rows.itemsize

    def answer(self, chunk: Chunk, first: int) -> bytes | GuardError:
        """`first`: row of the chunk's first token."""
        if len(chunk.reads) == chunk.count:
            return self._slice(first, first + chunk.count)
        answer = b""
        for position in chunk.reads:
            row = first - chunk.start + position
            part = self._slice(row, row + 1)
            if isinstance(part, GuardError):
                return part
            answer += part
        return answer

    def _slice(self, start: int, end: int) -> bytes | GuardError:
        if not self._are_good and not self._good[start:end].all():
            return GuardFault("the guard's probabilities do not sum to one")
        return self._data[start * self._bytes : end * self._bytes]


def _cut(items: Ints, tokens: int) -> Ints:
    """Items of any length -> items of at most `tokens`."""
    parts = -(-items[:, 1] // tokens)
    index = np.repeat(np.arange(len(items)), parts)
    skipped = (np.arange(len(index)) - np.repeat(np.cumsum(parts) - parts, parts)) * tokens
    cut = items[index]
    cut[:, 0] += skipped
    cut[:, 1] = np.minimum(cut[:, 1] - skipped, tokens)
    cut[:, 2] += skipped
    return cut


def _put(buffer: Ints, start: int, items: Ints) -> None:
    buffer[start : start + items.size] = items.ravel()


def _aligned(count: int) -> int:
    return -(-count // ALIGNED_INTS) * ALIGNED_INTS
