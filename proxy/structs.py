"""Small records that pass between the stages of a stream, one or more for each delta or token.

They are msgspec's, which are the cheapest to make, and in a module of their own: the stages may be compiled, these not.
"""

import msgspec

from adapters.base import Key, Kind, Piece
from proxy.risk import Risk


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Tokens to classify. `position` counts from the first token of the view, frames excluded."""

    key: Key
    kind: Kind
    view: int
    position: int
    ids: list[int]


class Span(msgspec.Struct, frozen=True, gc=False):
    """A judged token: the source characters it covers."""

    start: int
    end: int
    risk: Risk


class Held(msgspec.Struct):
    """A piece that waits at the gate; `serial` counts all pieces of a response."""

    serial: int
    piece: Piece
    arrived: float  # of a delta, where that is measured


class Released(msgspec.Struct, frozen=True, gc=False):
    """A piece on its way to the client; `start` is the offset of a delta's text in its channel."""

    piece: Piece
    start: int = 0


class Patience(msgspec.Struct, frozen=True, gc=False):
    """How long an answer waits, in seconds."""

    verdict_seconds: float
    idle_seconds: float  # for the upstream's next bytes
    total_seconds: float
    beat_seconds: float  # that the client gets nothing, until it gets a sign of life
