"""The chunks of one answer on their way to its client: bytes of our own, straight to the transport.

No coroutines, so that it can be compiled: it is called for each chunk.
"""

from typing import Final

from aiohttp.base_protocol import BaseProtocol

END: Final = b"0\r\n\r\n"


class ChunkWriter:
    """`write` chunks, the last of them with its end; or `end` afterwards."""

    def __init__(self, protocol: BaseProtocol, *, is_chunked: bool) -> None:
        """`is_chunked`: else the answer ends where the connection does, as older clients read it."""
        self._protocol = protocol
        self._is_chunked = is_chunked
        self.head = b""  # goes out with the first chunk
        self.has_ended = False

    def write(self, data: bytes, *, is_last: bool = False) -> None:
        """One chunk, not empty: an empty one would say that this was all. Nothing may follow the last.

        At once; it never waits. Raises ConnectionResetError where the client is gone.
        """
        if self._is_chunked:
            data = b"%b%x\r\n%b\r\n%b" % (self.head, len(data), data, END if is_last else b"")
        elif self.head:
            data = self.head + data
        self.head, self.has_ended = b"", is_last
        self._write(data)

    def end(self) -> None:
        """Say that this was all, if that is not said. Raises ConnectionResetError where the client is gone."""
        if not self.has_ended:
            self.has_ended = True
            self._write(self.head + END if self._is_chunked else self.head)

    @property
    def is_full(self) -> bool:
        """More waits for the client than the transport likes to hold. What is written all the same is held, too."""
        return self._protocol.writing_paused

    def _write(self, data: bytes) -> None:
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)
