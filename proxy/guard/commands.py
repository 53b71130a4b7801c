"""What a door asks of the engine, one message each, and what comes back. They travel as msgpack arrays."""

import msgspec

from proxy.guard.protocol import GuardError
from proxy.risk import Role


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Frozen and positional: a field more or less is a new version of the wire."""


class Open(Message, frozen=True):
    """A new stream with these tokens. `is_alone`: a step with it died before, so it may not harm others again."""

    ticket: int
    stream: int
    ids: list[int]
    reads: list[int]
    role: Role
    owner: str
    is_alone: bool = False


class Feed(Message, frozen=True):
    """Append `ids` at `position`; tokens from there on, if any, are taken back first."""

    ticket: int
    stream: int
    position: int
    ids: list[int]
    role: Role = Role.ASSISTANT


class Fork(Message, frozen=True):
    """A new stream with the first `position` tokens of another."""

    stream: int
    child: int
    position: int


class Cancel(Message, frozen=True):
    """Nobody waits for the stream's question any more."""

    stream: int
    ticket: int


class Close(Message, frozen=True):
    stream: int


Command = Open | Feed | Fork | Cancel | Close


class Outcome(msgspec.Struct, frozen=True):
    """The answer to an Open or a Feed: a row a position asked (see `rows`), or the error instead."""

    ticket: int
    rows: bytes = b""
    error: GuardError | None = None
