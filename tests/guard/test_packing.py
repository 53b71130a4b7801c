from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.guard.packing import OUTPUT_WIDTH, OUTPUTS, Ints, Layout, Tiles, bucket_sizes, clear, pack, split, unpack
from proxy.guard.pages import PAGE_TOKENS, Table, pages_for
from proxy.guard.protocol import GuardFault
from proxy.guard.rows import read_rows
from proxy.guard.sequence import Chunk, Job, Sequence
from proxy.risk import Role

TILES = Tiles(small=4, large=16)


def chunk(number: int, start: int, count: int, reads: list[int] | None = None, role: Role = Role.ASSISTANT) -> Chunk:
    """Tokens are numbered from 1000 * number on, pages from 100 * number on."""
    end = start + count
    sequence = Sequence(number, "", list(range(1000 * number, 1000 * number + end)), start)
    sequence.slot = Table(sequence, pages_of(number, end))
    reads = list(range(start, end)) if reads is None else reads
    return Chunk(sequence, Job(number, end, reads, role, 0.0), start, count, reads)


def pages_of(number: int, tokens: int) -> "array[int]":
    return array("i", range(100 * number, 100 * number + pages_for(tokens)))


def test_buckets_double_and_are_closer_where_padding_costs_most() -> None:
    assert bucket_sizes(8) == [1, 2, 4, 8]
    assert bucket_sizes(1536) == [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536]
    assert bucket_sizes(100) == [1, 2, 4, 8, 16, 32, 64, 100]
    assert bucket_sizes(1) == [1]


def test_parts_of_the_buffer_are_aligned_and_in_order() -> None:
    for tokens in bucket_sizes(1536):
        layout = Layout.of(tokens, TILES)
        parts = [0, layout.positions, layout.places, layout.small, layout.large, layout.tables]
        assert parts == sorted(parts)
        assert not any(part % 4 for part in parts)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=12), st.integers(1, 16))
def test_a_batch_is_in_the_buffer_as_its_chunks_say(shapes: list[tuple[int, int]], small: int) -> None:
    tiles = Tiles(small, 2 * small)
    chunks = [chunk(number + 1, start, count) for number, (start, count) in enumerate(shapes)]
    tokens = sum(count for _, count in shapes)
    layout = Layout.of(next(size for size in bucket_sizes(1024) if size >= tokens), tiles)
    buffer = np.full(layout.tables + 200, 7, np.int32)
    packed = pack(chunks, layout, tiles, buffer)
    assert packed.tokens == tokens
    tables = buffer[layout.tables : packed.used]
    places, positions, ids = (buffer[start : start + layout.tokens] for start in (layout.places, layout.positions, 0))
    assert (places[tokens:] == -1).all()
    seen = []
    for first, count, start, begin in items_of(layout, buffer):
        number = ids[first] // 1000
        for row in range(first, first + count):
            at = start + row - first
            seen.append(row)
            assert (ids[row], positions[row]) == (1000 * number + at, at)
            assert places[row] == (100 * number + at // PAGE_TOKENS) * PAGE_TOKENS + at % PAGE_TOKENS
            assert tables[begin + at // PAGE_TOKENS] == 100 * number + at // PAGE_TOKENS
    assert sorted(seen) == list(range(tokens))


def items_of(layout: Layout, buffer: Ints) -> list[tuple[int, int, int, int]]:
    items = buffer[layout.small : layout.small + 4 * (layout.small_items)].reshape(-1, 4).tolist()
    items += buffer[layout.large : layout.large + 4 * layout.large_items].reshape(-1, 4).tolist()
    return [(first, count, start, begin) for first, count, start, begin in items if count]


def test_long_chunks_are_cut_into_tiles_and_short_ones_are_not() -> None:
    layout = Layout.of(64, TILES)
    buffer = np.zeros(layout.tables + 16, np.int32)
    pack([chunk(1, 10, 4), chunk(2, 70, 35), chunk(3, 0, 5)], layout, TILES, buffer)
    assert items_of(layout, buffer) == [(0, 4, 10, 0), (4, 16, 70, 1), (20, 16, 86, 1), (36, 3, 102, 1), (39, 5, 0, 3)]


def test_a_small_bucket_has_no_room_for_what_cannot_come() -> None:
    assert Layout.of(4, TILES).large_items == 0
    assert Layout.of(5, TILES).large_items == 1


def test_padding_belongs_to_nobody() -> None:
    layout = Layout.of(8, TILES)
    buffer = np.full(layout.tables, 9, np.int32)
    clear(layout, buffer)
    assert items_of(layout, buffer) == []
    assert (buffer[layout.places : layout.places + 8] == -1).all()


def test_what_does_not_fit_the_buffers_becomes_two_batches() -> None:
    chunks = [chunk(number, 0, 30) for number in range(1, 6)]
    assert [len(batch) for batch in split(chunks, 64, 100)] == [2, 2, 1]
    assert [len(batch) for batch in split(chunks, 1000, 3)] == [3, 2]
    assert [len(batch) for batch in split(chunks, 1000, 100)] == [5]


def outputs_of(tokens: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Rows whose first level's probability tells the token: 0.00, 0.01, ..."""
    outputs = np.zeros((tokens, OUTPUT_WIDTH), np.float32)
    for columns in OUTPUTS.values():
        first = columns.start
        outputs[:, first] = np.arange(tokens) / 100
        outputs[:, first + 1] = 1 - np.arange(tokens) / 100
        outputs[:, first + 3] = 1
    return outputs


def test_each_chunk_gets_the_rows_it_reads_from_its_roles_heads() -> None:
    chunks = [chunk(1, 5, 3), chunk(2, 10, 4, [11, 13], Role.USER), chunk(3, 0, 2, [])]
    layout = Layout.of(16, TILES)
    packed = pack(chunks, layout, TILES, np.zeros(layout.tables + 16, np.int32))
    answers = unpack(outputs_of(9), packed)
    found = []
    for answer, role, count in zip(answers, (Role.ASSISTANT, Role.USER, Role.ASSISTANT), (3, 2, 0), strict=True):
        assert isinstance(answer, bytes)
        found.append([round(risk.levels[0], 2) for risk in read_rows(answer, count, role)])
    assert found == [[0.0, 0.01, 0.02], [0.04, 0.06], []]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_fail_their_chunk_alone(bad: float) -> None:
    chunks = [chunk(1, 0, 2), chunk(2, 0, 2, []), chunk(3, 0, 2)]
    layout = Layout.of(8, TILES)
    packed = pack(chunks, layout, TILES, np.zeros(layout.tables + 16, np.int32))
    outputs = outputs_of(6)
    outputs[2, 0] = bad
    answers = unpack(outputs, packed)
    assert [isinstance(answer, GuardFault) for answer in answers] == [False, True, False]


def test_rows_that_are_no_distributions_are_a_fault() -> None:
    chunks = [chunk(1, 0, 2), chunk(2, 0, 2)]
    layout = Layout.of(4, TILES)
    packed = pack(chunks, layout, TILES, np.zeros(layout.tables + 16, np.int32))
    outputs = outputs_of(4)
    outputs[1, OUTPUTS[Role.ASSISTANT].start] = float("nan")
    outputs[2, OUTPUTS[Role.USER].start] = 5  # nobody reads these heads
    answers = unpack(outputs, packed)
    assert [isinstance(answer, GuardFault) for answer in answers] == [True, False]
