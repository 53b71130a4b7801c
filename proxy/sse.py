"""Bytes <-> server-sent events, to the WHATWG rules, at any cut of the bytes.

One difference from the standard: an event whose data is empty is not reported. No dialect gives
it a meaning, several servers send it as a keep-alive, and clients that parse data as JSON fail
on it. Comments, `id` and `retry` are read and forgotten: they could carry text past the guard.
"""

import re
from typing import Final

from adapters.base import Event

# Above any event that a model's server sends; an event without end stops here.
MAX_EVENT_BYTES = 4 << 20

# A comment line for a connection that would look idle. It stands directly before the next event,
# without a blank line of its own: some clients read comment + blank line as an event without data.
HEARTBEAT = b": hb\n"

# As a number: a look for bytes of one tries first to read them as one, which takes ten times as long.
_CR: Final = 13
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LINE_END = re.compile(rb"\r\n|\r|\n")


class EventTooLarge(Exception):
    """A line or an event is larger than the decoder may hold.

    `events` were complete before it in the same chunk.
    """

    def __init__(self, limit: int, events: list[Event]) -> None:
        super().__init__(f"an event exceeds {limit} bytes")
        self.events = events


class EventDecoder:
    """Turns the chunks of one response into events."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._rest = bytearray()  # the start of a line whose end has not come
        self._data: list[bytes] = []  # the data lines of the event being read
        self._data_bytes = 0
        self._type = b""
        self._is_first_line = True
        self._skip_lf = False

    @property
    def held(self) -> int:
        """Bytes of an event that is not yet whole."""
        return self._data_bytes + len(self._rest)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes. Raises EventTooLarge; the decoder is of no use after it."""
        if (text := self._only_event(chunk)) is not None:
            return [Event(text)]
        if self._skip_lf and chunk:
            # The last chunk ended with a CR, so this LF is the other half of one line end.
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = False
        if _CR in chunk:
            self._skip_lf = chunk.endswith(b"\r")
            lines = LINE_END.split(chunk)
        else:
            lines = chunk.split(b"\n")
        events: list[Event] = []
        if len(lines) > 1:
            self._rest += lines[0]
            lines[0] = bytes(self._rest)
            self._rest.clear()
            self._read(lines, events)
        self._rest += lines[-1]
        if self.held > self._limit:
            raise EventTooLarge(self._limit, events)
        return events

    def _only_event(self, chunk: bytes) -> str | None:
        """The data of a chunk that is one whole event of one line, as nearly all are; None for any other."""
        if self._rest or self._data or self._type or self._is_first_line or self._skip_lf or len(chunk) > self._limit:
            return None
        if chunk[:6] != b"data: " or chunk.find(b"\n") != len(chunk) - 2 or chunk[-1:] != b"\n" or _CR in chunk:
            return None
        return chunk[6:-2].decode("utf-8", "replace") or None

    def finish(self) -> None:
        """The bytes have ended: an event that lacks its blank line is discarded, as the standard says."""
        self._rest.clear()
        self._data.clear()
        self._data_bytes = 0

    def _read(self, lines: list[bytes], events: list[Event]) -> None:
        """Every line of `lines` but the last, which has no end yet."""
        if self._is_first_line:
            lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
            self._is_first_line = False
        data = self._data
        for i in range(len(lines) - 1):
            line = lines[i]
            if self._data_bytes + len(line) > self._limit:
                raise EventTooLarge(self._limit, events)
            if not line:
                if data:
                    self._dispatch(events)
                self._type = b""
            elif line.startswith(b"data: "):
                data.append(line[6:])
                self._data_bytes += len(line)
            else:
                self._read_field(line)

    def _read_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")  # a comment has the empty name
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(line)
        elif name == b"event":
            self._type = value

    def _dispatch(self, events: list[Event]) -> None:
        # Line by line is the same as all at once: no line end is ever part of a longer sequence.
        text = b"\n".join(self._data).decode("utf-8", "replace")
        if text:
            events.append(Event(text, self._type.decode("utf-8", "replace") if self._type else ""))
        self._data.clear()
        self._data_bytes = 0


def encode_event(event: Event) -> bytes:
    """One `data` line, LF. Raises ValueError for what one line cannot say."""
    if not event.data or "\n" in event.data or "\r" in event.data:
        raise ValueError("an event's data is one line, not empty")
    if not event.type:
        return f"data: {event.data}\n\n".encode()
    if "\n" in event.type or "\r" in event.type:
        raise ValueError("an event's type is one line")
    return f"event: {event.type}\ndata: {event.data}\n\n".encode()
