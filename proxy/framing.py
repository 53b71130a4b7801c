"""How an answer is framed: as a stream of events, or as one JSON body.

Both take the same path through the machine; a body is one event in and one event out.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from adapters.base import Event
from adapters.errors import AdapterError
from proxy.limits import Limit
from proxy.sse import EventDecoder, EventTooLarge, encode_event

# An event or a body of more takes a millisecond or more to read, and to write.
LARGE_BYTES: Final = 128 << 10


class Framing(Protocol):
    @property
    def held(self) -> int:
        """Bytes of what is not yet whole; of a body, all."""

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Raises AdapterError, after the last good event, for what cannot be framed."""

    def finish(self) -> Iterable[Event]: ...

    def encode(self, event: Event) -> bytes: ...


class EventFraming:
    """text/event-stream."""

    def __init__(self, max_event_bytes: int) -> None:
        self._decoder = EventDecoder(max_event_bytes)

    @property
    def held(self) -> int:
        return self._decoder.held

    def feed(self, chunk: bytes) -> Iterable[Event]:
        try:
            return self._decoder.feed(chunk)
        except EventTooLarge as exc:
            return _before(exc)

    def finish(self) -> list[Event]:
        self._decoder.finish()
        return []

    def encode(self, event: Event) -> bytes:
        return encode_event(event)


def _before(error: EventTooLarge) -> Iterator[Event]:
    yield from error.events
    raise AdapterError(str(error), limit=Limit.EVENT) from error


class BodyFraming:
    """application/json: nothing can be read before all of it is here."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._chunks: list[bytes] = []
        self.held = 0

    def feed(self, chunk: bytes) -> list[Event]:
        self.held += len(chunk)
        if self.held > self._max_body_bytes:
            message = f"the upstream's body exceeds {self._max_body_bytes} bytes"
            raise AdapterError(message, limit=Limit.ANSWER_BODY)
        self._chunks.append(chunk)
        return []

    def finish(self) -> list[Event]:
        try:
            return [Event(b"".join(self._chunks).decode("utf-8"))]
        except UnicodeDecodeError as exc:
            raise AdapterError("the upstream's body is not UTF-8") from exc

    def encode(self, event: Event) -> bytes:
        return event.data.encode()
