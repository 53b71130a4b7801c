"""Small records that pass between the stages of a stream, one or more for each delta or token."""

from typing import Final, final

from adapters.base import Key, Kind, Piece, Record
from proxy.risk import Risk


@final
class Batch(Record):
    """Tokens to classify. `position` counts from the first token of the view, frames excluded."""

    __match_args__ = ("key", "kind", "view", "position", "ids")
    __slots__ = __match_args__

    def __init__(self, key: Key, kind: Kind, view: int, position: int, ids: list[int]) -> None:
        self.key: Final = key
        self.kind: Final = kind
        self.view: Final = view
        self.position: Final = position
        self.ids: Final = ids


@final
class Span(Record):
    """A judged token: the source characters it covers."""

    __match_args__ = ("start", "end", "risk")
    __slots__ = __match_args__

    def __init__(self, start: int, end: int, risk: Risk) -> None:
        self.start: Final = start
        self.end: Final = end
        self.risk: Final = risk


@final
class Held:
    """A piece that waits at the gate, and then leaves it; `serial` counts all pieces of a response."""

    __slots__ = ("arrived", "piece", "serial", "start")

    def __init__(self, serial: int, piece: Piece, arrived: float) -> None:
        self.serial = serial
        self.piece = piece
        self.arrived = arrived  # of a delta, where that is measured
        self.start = 0  # of a delta that leaves: the offset of its text in its channel


@final
class Patience:
    """How long an answer waits, in seconds."""

    __slots__ = ("beat_seconds", "idle_seconds", "total_seconds", "verdict_seconds")

    def __init__(self, verdict_seconds: float, idle_seconds: float, total_seconds: float, beat_seconds: float) -> None:
        self.verdict_seconds: Final = verdict_seconds
        self.idle_seconds: Final = idle_seconds  # for the upstream's next bytes
        self.total_seconds: Final = total_seconds
        self.beat_seconds: Final = beat_seconds  # that the client gets nothing, until it gets a sign of life
