"""An answer on the event loop with an upstream and a client that are scripts."""

import asyncio
from collections.abc import Callable
from typing import Any

from proxy.classifier import Classifier
from proxy.collected import Collected
from proxy.drive import Drive
from proxy.driver import Client
from proxy.settings import UpstreamSettings
from proxy.stream import ModeratedStream
from tests.driver import WORDS, stream_of
from tests.fakes import ScriptedGuard

TEXT = "".join(WORDS)


class Source:
    """An upstream's answer, as a test lets it come."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = list(chunks)
        self.more: Callable[[], None] | None = None
        self.taken = 0

    def take(self) -> bytes | None:
        if not self.chunks:
            return None
        found = self.chunks.pop(0)
        if isinstance(found, Exception):
            raise found
        self.taken += 1
        return found

    def listen(self, more: Callable[[], None] | None) -> None:
        self.more = more

    def come(self, *chunks: bytes | Exception) -> None:
        self.chunks += chunks
        if self.more is not None:
            self.more()


class Slow(Collected):
    """A client that is full after each write, until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = self.is_fast = False
        self.waits = asyncio.Event()
        self.room = asyncio.Event()
        self.error: Exception | None = None

    def write(self, data: bytes) -> None:
        assert not self.is_full
        super().write(data)
        self.is_full = not self.is_fast

    async def drain(self) -> None:
        self.waits.set()
        await self.room.wait()
        self.room.clear()
        if self.error is not None:
            raise self.error
        self.is_full = False


class Beaten(Collected):
    def __init__(self) -> None:
        super().__init__()
        self.beats = 0
        self.beaten = asyncio.Event()

    def beat(self) -> None:
        self.beats += 1
        self.beaten.set()


async def classifier_of(guard: ScriptedGuard, seconds: float = 20.0) -> Classifier:
    stream, _ = await guard.open([1, 2, 3])
    return Classifier(stream, seconds)


def drive_of(
    stream: ModeratedStream, source: Source, classifier: Classifier | None, client: Client, **limits: Any
) -> Drive:
    beat_seconds = limits.pop("beat_seconds", 60.0)
    return Drive(stream, source, classifier, client, UpstreamSettings(**limits), beat_seconds, fails_open=False)


async def run(
    source: Source, guard: ScriptedGuard | None = None, client: Client | None = None, **limits: float
) -> ModeratedStream:
    """An answer from its first byte to its end."""
    stream, _ = stream_of()
    guard = guard or ScriptedGuard()
    verdict_seconds = limits.pop("verdict_seconds", 20.0)
    async with asyncio.timeout(20), await classifier_of(guard, verdict_seconds) as classifier:
        await drive_of(stream, source, classifier, client or Collected(), **limits).run()
    assert guard.slots == 0
    assert source.more is None
    return stream
