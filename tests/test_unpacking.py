"""What is packed comes out in steps, whatever packed it."""

import gzip
import zlib

import brotli  # type: ignore[import-untyped]
import pytest
from backports import zstd

from proxy.unpacking import Unpacker

TEXT = b"".join(b"%d of many, " % number for number in range(20_000))


def bare_deflate(data: bytes) -> bytes:
    """Without zlib's header, as some servers send it."""
    tool = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return tool.compress(data) + tool.flush()


PACKED = {
    "gzip": gzip.compress(TEXT),
    "gzip in two members": gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:]),
    "deflate": zlib.compress(TEXT),
    "deflate, bare": bare_deflate(TEXT),
    "br": brotli.compress(TEXT),
    "zstd": zstd.compress(TEXT),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_it_comes_out_whole_in_steps(name: str, size: int) -> None:
    packed = PACKED[name]
    unpacker = Unpacker(name.replace(",", " ").split()[0])
    found = []
    for at in range(0, len(packed), size):
        found.append(unpacker.unpack(packed[at : at + size], 5000))
        while unpacker.has_more:
            found.append(unpacker.unpack(b"", 5000))
    assert b"".join(found) == TEXT
    assert max(map(len, found)) <= 5000
    assert not unpacker.is_cut


def test_deflate_tells_that_it_is_cut() -> None:
    unpacker = Unpacker("deflate")
    unpacker.unpack(PACKED["deflate"][:-10], 1 << 20)
    assert unpacker.is_cut
