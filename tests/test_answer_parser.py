"""One answer, without a socket: any cut of it reads the same, and what cannot be read for certain is refused."""

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from contextlib import suppress

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser
from hypothesis import given
from hypothesis import strategies as st

from proxy.answer_parser import MAX_FIELD_BYTES, MAX_HEAD_BYTES, AnswerParser
from proxy.errors import BrokenAnswer
from tests.fakes import framed

LIMIT = 16 << 10
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"


def fed(parts: Sequence[bytes], *, closes: bool = False, has_body: bool = True) -> AnswerParser:
    parser = AnswerParser(has_body=has_body)
    for part in parts:
        parser.feed(part)
    if closes:
        parser.feed_eof()
    return parser


def body_of(parser: AnswerParser, limit: int = LIMIT) -> bytes:
    found = []
    while part := parser.take(limit):
        found.append(part)
    assert parser.size == 0
    assert not parser.has_more
    return b"".join(found)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False) if begin < end]


BODIES = st.binary(max_size=300)
FRAMINGS = st.sampled_from(["chunked", "length", "close"])
PLACES = st.lists(st.integers(0, 2000), max_size=30)


@given(body=BODIES, framing=FRAMINGS, size=st.integers(1, 64), places=PLACES)
def test_any_cut_of_an_answer_reads_the_same(body: bytes, framing: str, size: int, places: list[int]) -> None:
    parser = fed(cut(framed(body, framing, size=size), places), closes=framing == "close")
    assert parser.head is not None
    assert (parser.head.code, parser.head.headers["Content-Type"]) == (200, "text/event-stream")
    assert body_of(parser) == body
    assert (parser.has_ended, parser.is_last) == (True, framing == "close")


FRAMED = [
    b"",
    b"abc",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"3 \r\nabc\r\n",
    b"3;x=y\r\nabc\r\n0\r\nt: u\r\n\r\n",
    b"3\nabc\n0\n\n",
]


class Reference:
    """aiohttp's own reading, by its stream object."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def read(self, data: bytes) -> tuple[int, bytes, bool] | None:
        protocol = BaseProtocol(self.loop)
        parser = HttpResponseParser(protocol, self.loop, 1 << 16, auto_decompress=False, read_until_eof=True)
        try:
            messages, _, _ = parser.feed_data(data)
        except Exception:
            return None
        final = [one for one in messages if not 100 <= one[0].code <= 199]
        if not final:
            return None
        head, body = final[0]
        if head.headers.getall("transfer-encoding", []) not in ([], ["chunked"]):
            return None  # which nobody asked for
        return head.code, b"".join(body._buffer), body.is_eof()


@given(
    code=st.sampled_from([100, 200, 204, 304, 400, 500]),
    fields=st.lists(
        st.sampled_from(
            [
                b"content-length: 3",
                b"content-length: 0",
                b"Transfer-Encoding: chunked",
                b"connection: close",
                b"x: y",
                b"x:  y \t",
                b"x : y",
                b" folded",
                b"x: \xff",
                b"content-length: x",
            ]
        ),
        max_size=3,
    ),
    body=st.sampled_from(FRAMED),
    end=st.sampled_from([b"\r\n", b"\n"]),
)
def test_it_reads_what_aiohttp_reads(code: int, fields: list[bytes], body: bytes, end: bytes) -> None:
    data = end.join([b"HTTP/1.1 %d X" % code, *fields, b"", b""]) + body
    reference = Reference()
    try:
        expected = reference.read(data)
    finally:
        reference.loop.close()
    parser = AnswerParser()
    try:
        parser.feed(data)
    except BrokenAnswer:
        assert expected is None
        return
    if parser.head is None:
        assert expected is None
        return
    found = parser.head.code, body_of(parser), parser.has_ended
    assert expected == found


@pytest.mark.parametrize("size", [MAX_FIELD_BYTES, MAX_FIELD_BYTES + 1])
def test_a_field_has_a_limit(size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nx: " + b"y" * (size - 1) + b"\r\ncontent-length: 0\r\n\r\n"
    if size <= MAX_FIELD_BYTES:
        assert fed([head]).has_ended
    else:
        with pytest.raises(BrokenAnswer):
            fed([head])


ENDLESS = [
    b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
    b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
    b"HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" * 5000,
    b"HTTP/1.1 200 " + b"O" * 100_000,
]


@pytest.mark.parametrize("data", ENDLESS)
@pytest.mark.parametrize("size", [7, 1000])
def test_a_head_that_does_not_end_is_given_up(data: bytes, size: int) -> None:
    """Many lines, one that goes on, interim answers without end."""
    read = 0
    parser = AnswerParser()
    with suppress(BrokenAnswer):
        for at in range(0, len(data), size):
            parser.feed(data[at : at + size])
            read += size
    assert parser.head is None
    assert read <= MAX_HEAD_BYTES + size


def test_a_head_without_a_body_ends_at_once_and_what_follows_spoils_it() -> None:
    parser = fed([b"HTTP/1.1 200 Connection established\r\n\r\n"], has_body=False)
    assert (parser.has_ended, parser.is_last) == (True, False)
    parser.feed(b"\x16\x03")
    assert parser.is_last
    assert parser.take(LIMIT) == b""


@pytest.mark.parametrize("more", [OK, b"x", OK[:12]])
def test_what_stands_behind_an_answer_is_no_part_of_it(more: bytes) -> None:
    parser = fed([OK])
    assert not parser.is_last
    try:
        parser.feed(more)
    except BrokenAnswer:
        assert more == b"x"
    assert parser.is_last
    assert body_of(parser) == b"abc"
    assert parser.has_ended


def test_an_answer_that_is_given_up_reads_no_more() -> None:
    parser = fed([OK[:-1]])
    parser.close()
    with pytest.raises(BrokenAnswer):
        parser.feed(b"c")
    with pytest.raises(BrokenAnswer):
        parser.feed_eof()


@given(body=st.binary(max_size=3000), places=PLACES, limit=st.integers(1, 400))
def test_a_packed_body_is_taken_in_steps(body: bytes, places: list[int], limit: int) -> None:
    packed = gzip.compress(body)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: GZIP\r\ncontent-length: %d\r\n\r\n" % len(packed)
    parser = fed(cut(head + packed, places))
    found = []
    while part := parser.take(limit):
        assert len(part) <= limit
        found.append(part)
    assert b"".join(found) == body
    assert parser.has_ended


@pytest.mark.parametrize("packed", [b"\x1f\x8bnonsense, and more of it", gzip.compress(b"x" * 50)[:12] + b"\0" * 60])
def test_a_body_that_cannot_be_unpacked_never_ends_well(packed: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    parser = fed([head, packed])
    with pytest.raises(BrokenAnswer):
        body_of(parser)
    assert not parser.has_ended
    assert parser.take(LIMIT) == b""


def test_a_deflated_body_that_is_cut_is_no_whole_one() -> None:
    packed = zlib.compress(b"abc" * 100)[:-6]
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: deflate\r\ncontent-length: %d\r\n\r\n" % len(packed)
    with pytest.raises(BrokenAnswer):
        body_of(fed([head, packed]))
