"""Bodies that an upstream compresses although it was asked not to."""

from aiohttp.compression_utils import BrotliDecompressor, ZLibDecompressor, ZSTDDecompressor

# What the low half of the first byte says of zlib's own header (RFC 1950); some servers leave that out.
ZLIB_METHOD = 8


class Unpacker:
    """Takes packed pieces, and gives what is in them in steps of a bounded size."""

    def __init__(self, coding: str) -> None:
        """`coding`: gzip, deflate, br or zstd."""
        self._coding = coding
        self._tool: BrotliDecompressor | ZLibDecompressor | ZSTDDecompressor | None = None
        self._rest = b""  # Brotli goes beyond a limit

    def unpack(self, piece: bytes, limit: int) -> bytes:
        """At most `limit` bytes, more of them with an empty piece. Raises an error of the codec."""
        if self._tool is None:
            self._tool = _tool_for(self._coding, piece)
        found = self._rest if self._rest and not piece else self._rest + self._tool.decompress_sync(piece, limit)
        self._rest = found[limit:]
        return found[:limit]

    @property
    def has_more(self) -> bool:
        """Whether an empty piece may bring something."""
        return bool(self._rest) or (self._tool is not None and self._tool.data_available)

    @property
    def is_cut(self) -> bool:
        """Whether what came so far cannot be all, where the coding tells."""
        return self._coding == "deflate" and isinstance(self._tool, ZLibDecompressor) and not self._tool.eof


def _tool_for(coding: str, first: bytes) -> BrotliDecompressor | ZLibDecompressor | ZSTDDecompressor:
    if coding == "br":
        return BrotliDecompressor()
    if coding == "zstd":
        return ZSTDDecompressor()
    is_bare = coding == "deflate" and first[:1] != b"" and first[0] & 0xF != ZLIB_METHOD
    return ZLibDecompressor(encoding=coding, suppress_deflate_header=is_bare)
