"""What a door asks of the engine, one message each, and what comes back. They travel as msgpack arrays."""

from typing import Annotated

import msgspec

from proxy.guard.protocol import GuardError
from proxy.risk import Role

# A door's own numbers, for streams and tickets: 40 bits. An engine with many doors puts theirs above them.
NUMBER_BITS = 40
Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << NUMBER_BITS)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Frozen and positional: a field more or less is a new version of the wire."""


class Open(Message, frozen=True):
    """A new stream with these tokens, or one that the engine lost.

    `is_replay`: it was let in already, so it is never refused. `is_alone`: an engine died in a step with it, so it
    may not harm others again.
    """

    ticket: Number
    stream: Number
    ids: list[int]
    reads: list[int]
    role: Role
    owner: str
    is_replay: bool = False
    is_alone: bool = False


class Feed(Message, frozen=True):
    """Append `ids` at `position`; tokens from there on, if any, are taken back first."""

    ticket: Number
    stream: Number
    position: Count
    ids: list[int]
    role: Role = Role.ASSISTANT


class Fork(Message, frozen=True):
    """A new stream with the first `position` tokens of another."""

    stream: Number
    child: Number
    position: Count


class Cancel(Message, frozen=True):
    """Nobody waits for the stream's question any more."""

    stream: Number
    ticket: Number


class Close(Message, frozen=True):
    stream: Number


Command = Open | Feed | Fork | Cancel | Close


class Outcome(msgspec.Struct, frozen=True):
    """The answer to an Open or a Feed: a row a position asked (see `rows`), or the error instead."""

    ticket: int
    rows: bytes = b""
    error: GuardError | None = None
