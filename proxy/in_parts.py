"""What one read of a socket brings, parsed in several turns of the event loop where it is much.

HTTP in chunks of a byte takes 30 ms to parse where a read brings 256 KiB of it, and everybody waits for that.
"""

import asyncio
from typing import Final

from aiohttp.base_protocol import BaseProtocol

# Of such chunks, 2 ms.
PARSED_BYTES: Final = 16 << 10


class InParts(BaseProtocol):
    """A protocol whose `data_received` begins with

    if (self._late or len(data) > PARSED_BYTES) and self._puts_off(data):
        return

    and is called again with each part, in order. Until all are parsed, no more is read. A subclass has slots for what
    is named here, since it is looked at for each read.
    """

    _late: bytes  # that are not yet parsed
    _turn: asyncio.Handle | None
    _is_parsing: bool

    def _begin_parts(self) -> None:
        self._late, self._turn, self._is_parsing = b"", None, False

    def _puts_off(self, data: bytes) -> bool:
        if self._is_parsing or not data:  # none: the parser goes on with what it has
            return False
        is_first = not self._late
        self._late += data
        self._pause_reading_for_buffer()
        if is_first:
            self._parse_part()
        return True

    def _parse_part(self) -> None:
        self._turn = None
        if self.transport is None:
            self._late = b""
        if not self._late or self._reading_paused:  # `resume_reading` goes on
            return
        self._parse(PARSED_BYTES)
        if self._late:
            self._turn = self._loop.call_soon(self._parse_part)
        elif self._buffer_paused:
            self._all_parsed()

    def _parse(self, size: int) -> None:
        part, self._late = self._late[:size], self._late[size:]
        self._is_parsing = True
        try:
            self.data_received(part)
        finally:
            self._is_parsing = False

    def _all_parsed(self) -> None:
        self._resume_reading_for_buffer()

    def resume_reading(self, resume_parser: bool = True) -> None:
        super().resume_reading(resume_parser)
        if self._late and self._turn is None and not self._is_parsing:
            self._turn = self._loop.call_soon(self._parse_part)
