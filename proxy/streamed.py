"""A client of a `Drive` that gets its answer as it comes.

No coroutines, so that it can be compiled: it is called for each chunk.
"""

from collections.abc import Coroutine
from typing import Any, Protocol

from proxy.chunk_writer import ChunkWriter


class Answer(Protocol):
    """What is to be known of an answer that goes out."""

    def begin(self) -> None:
        """Its first bytes come: make its head."""

    def beat(self) -> None:
        """A sign of life, for one that has got nothing for a while."""

    def drain(self) -> Coroutine[Any, Any, None]:
        """To be awaited until its client is full no more, or raises."""

    def has_all(self) -> bool:
        """Whether nothing more can come, so that its client may be told that this was all."""


class Streamed:
    def __init__(self, out: ChunkWriter, answer: Answer) -> None:
        self._out = out
        self._answer = answer
        self._has_begun = False

    def write(self, data: bytes) -> None:
        if not self._has_begun:
            self._begin()
        self._out.write(data)

    def write_last(self, data: bytes) -> None:
        if not self._has_begun:
            self._begin()
        self._out.write(data, is_last=self._answer.has_all())

    def beat(self) -> None:
        self._answer.beat()

    def drain(self) -> Coroutine[Any, Any, None]:
        return self._answer.drain()

    @property
    def is_full(self) -> bool:
        return self._out.is_full

    def _begin(self) -> None:
        self._has_begun = True
        self._answer.begin()
