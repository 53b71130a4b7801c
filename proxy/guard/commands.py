"""What a door asks of the engine, one message each, and what comes back."""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.guard.protocol import GuardError
from proxy.risk import Risk, Role


@dataclass(frozen=True, slots=True)
class Open:
    ticket: int
    stream: int
    ids: list[int]
    reads: Sequence[int]
    role: Role
    owner: str


@dataclass(frozen=True, slots=True)
class Feed:
    """Append `ids` at `position`; tokens from there on, if any, are taken back first."""

    ticket: int
    stream: int
    position: int
    ids: list[int]
    role: Role = Role.ASSISTANT


@dataclass(frozen=True, slots=True)
class Fork:
    """A new stream with the first `position` tokens of another."""

    stream: int
    child: int
    position: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for the stream's question any more."""

    stream: int
    ticket: int


@dataclass(frozen=True, slots=True)
class Close:
    stream: int


Command = Open | Feed | Fork | Cancel | Close


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to an Open or a Feed: one risk a position asked, or the error instead."""

    ticket: int
    risks: list[Risk]
    error: GuardError | None = None
