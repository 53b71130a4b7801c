"""Between a door and an engine in another process: length-prefixed msgpack, one frame a tick each way.

A connection begins with a `Hello`, answered by a `Welcome` or a `Refusal`. Then lists of commands go one
way, `Answers` and, every second, a `Pulse` the other.
"""

import hmac
from collections.abc import Callable, Sequence
from struct import Struct

import msgspec

from proxy.guard.commands import Command, Outcome
from proxy.guard.metrics import Metrics
from proxy.guard.protocol import (
    GuardError,
    GuardFault,
    GuardInfo,
    GuardOverloaded,
    GuardTimeout,
    GuardUnavailable,
    SequenceTooLong,
    UnknownStream,
)

VERSION = 1
# Far above a tick of thousands of prompts; stops a peer that speaks something else.
MAX_FRAME_BYTES = 64 << 20
MAX_HELLO_BYTES = 4096
# How often an engine says that it is alive, and how long a door waits for that.
PULSE_SECONDS = 1.0
SILENT_SECONDS = 20.0
# A door that does not read this much of its own answers is gone, whatever its socket says.
MAX_UNSENT_BYTES = 64 << 20
# A peer has this long for its first words.
HELLO_SECONDS = 5.0

LENGTH = Struct("<I")
ERRORS: dict[str, type[GuardError]] = {
    error.__name__: error
    for error in (
        GuardError,
        GuardFault,
        GuardOverloaded,
        GuardTimeout,
        GuardUnavailable,
        SequenceTooLong,
        UnknownStream,
    )
}


class FrameError(Exception):
    """What came is no frame of this protocol, or too large."""


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The door's first words. `door` names it over all its connections; `token` is for TCP."""

    version: int
    door: int
    token: str = ""


class Welcome(msgspec.Struct, frozen=True, tag=True):
    """`suspects` are the door's streams in the step during which the last engine died."""

    info: GuardInfo
    vocabulary: int
    suspects: list[int]


class Refusal(msgspec.Struct, frozen=True, tag=True):
    reason: str


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """An Outcome; its error by name and words."""

    ticket: int
    rows: bytes
    error: str = ""
    detail: str = ""


class Answers(msgspec.Struct, frozen=True, array_like=True, tag=True):
    answers: list[Answer]


class Pulse(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The engine lives, and this is how it is."""

    metrics: Metrics


def refusal_of(hello: Hello, token: str) -> str:
    """Why a door may not come in; empty when it may. Without a `token` anyone may."""
    if token and not hmac.compare_digest(hello.token.encode(), token.encode()):
        return "the token is not the engine's"
    if hello.version != VERSION:
        return f"the engine speaks version {VERSION}, not {hello.version}: both sides must be of one release"
    return ""


encode = msgspec.msgpack.Encoder().encode
decode_hello = msgspec.msgpack.Decoder(Hello).decode
decode_commands = msgspec.msgpack.Decoder(list[Command]).decode
decode_greeting: Callable[[bytes], Welcome | Refusal] = msgspec.msgpack.Decoder(Welcome | Refusal).decode
decode_news: Callable[[bytes], Answers | Pulse] = msgspec.msgpack.Decoder(Answers | Pulse).decode


def frame(body: bytes) -> bytes:
    """Raises FrameError for a body that no peer would take."""
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes; {MAX_FRAME_BYTES} are allowed")
    return LENGTH.pack(len(body)) + body


def answers_of(outcomes: Sequence[Outcome]) -> Answers:
    return Answers([_answer(outcome) for outcome in outcomes])


def outcomes_of(answers: Answers) -> list[Outcome]:
    return [
        Outcome(
            answer.ticket, answer.rows, ERRORS.get(answer.error, GuardFault)(answer.detail) if answer.error else None
        )
        for answer in answers.answers
    ]


def _answer(outcome: Outcome) -> Answer:
    error = outcome.error
    if error is None:
        return Answer(outcome.ticket, outcome.rows)
    name = next(name for kind in type(error).__mro__ if (name := kind.__name__) in ERRORS)
    return Answer(outcome.ticket, b"", name, str(error))


class FrameDecoder:
    """Bytes, cut anywhere -> the bodies of frames."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now. Raises FrameError for one above the limit."""
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer, start)
            if length > self.limit:
                raise FrameError(f"a message of {length} bytes; {self.limit} are allowed")
            end = start + LENGTH.size + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[start + LENGTH.size : end]))
            start = end
        if start:
            del self._buffer[:start]
        return bodies
