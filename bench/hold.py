"""How long a character is held, from its arrival to its release, and in which part of the way.

    python -m bench.hold [--streams 50] [--rate 50] [--seconds 20]

The real pump, stream, classifier and guard, in hold mode, without sockets between them and a scripted upstream: arrival
is when a delta is due, release is when it is written. Each stream gets its deltas evenly, each at times of its own.
"""

import argparse
import asyncio
import json
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import uvloop
from rich.console import Console
from rich.table import Table

from adapters import ENDPOINTS
from adapters.base import Key, Kind, Options
from bench.texts import ENGLISH
from proxy.benchmark.arrivals import percentile
from proxy.classifier import Classifier
from proxy.config import load_settings
from proxy.conversation import answer_frame, render
from proxy.drive import Drive
from proxy.framing import EventFraming
from proxy.guard.metrics import Histogram, Metrics
from proxy.guard.process import ProcessGuard
from proxy.guard.protocol import Guard, GuardStream, Heard
from proxy.guards import open_guard
from proxy.policies import policy_of
from proxy.policy import Policy
from proxy.risk import Risk, Role
from proxy.settings import UpstreamSettings
from proxy.stream import Expected, ModeratedStream
from proxy.vocabulary import decode_bytes

CHAT, CONTENT = "/v1/chat/completions", Key(0, "content")
DELTA_CHARACTERS = 4  # about a token of English
FRAME_BYTES = len(answer_frame(Kind.CONTENT).prefix.encode())
FRAME_TOKENS = len(answer_frame(Kind.CONTENT).ids)
WARM_SECONDS = 2.0  # of each run, not counted
# Half of all text, and all but a hundredth, at 50 streams of 50 tokens a second.
AIMS_MS = (30.0, 80.0)


@dataclass
class Marks:
    """When so many characters of a text were there: (characters, seconds), both rising."""

    ends: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, end: int, at: float) -> None:
        if not self.ends or end > self.ends[-1]:
            self.ends.append(end)
            self.times.append(at)

    def time_of(self, character: int) -> float:
        """When the character with that number, from 0, was there."""
        return self.times[bisect_left(self.ends, character + 1)]


class Play:
    """One stream, its text and what becomes of each character. ASCII, so that a byte is a character."""

    def __init__(self, guard: Guard, policy: Policy, number: int, rate: float, deltas: int, start: float) -> None:
        self._guard, self._policy, self._number = guard, policy, number
        self._due = [start + (number % 97) / 97 / rate + n / rate for n in range(deltas)]
        text = (ENGLISH * (1 + deltas * DELTA_CHARACTERS // len(ENGLISH)))[: deltas * DELTA_CHARACTERS]
        self._parts = [text[at : at + DELTA_CHARACTERS] for at in range(0, len(text), DELTA_CHARACTERS)]
        self.arrived, self.read, self.handed, self.judged, self.released = (Marks() for _ in range(5))
        self._next = 0
        self._stream: ModeratedStream | None = None
        self._more: Callable[[], None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        asked = [{"role": "user", "content": f"Tell me about tomatoes, number {self._number}."}]
        prompt = render(asked, window=self._guard.info.window)
        opened, _ = await self._guard.open(prompt.ids, read=[prompt.verdict_position], role=Role.USER)
        adapter = ENDPOINTS[CHAT].stream(Options(model="m"))
        self._stream = ModeratedStream(EventFraming(1 << 20), adapter, self._policy, Expected())
        limits = UpstreamSettings()
        async with Classifier(_Marked(opened, self.handed, self.judged)) as classifier:
            await Drive(self._stream, self, classifier, self, limits, limits.idle_seconds, fails_open=False).run()
        if self._stream.error is not None:
            raise RuntimeError(self._stream.error)

    # A `drive.Source`.

    def take(self) -> bytes | None:
        """All that has arrived, as a socket would give it."""
        if self._next == len(self._parts):
            return b""
        now = time.monotonic()
        if now < self._due[self._next]:
            if self._alarm is None:
                self._alarm = asyncio.get_running_loop().call_later(self._due[self._next] - now, self._ring)
            return None
        first = self._next
        while self._next < len(self._parts) and self._due[self._next] <= now:
            self._next += 1
            self.arrived.add(self._next * DELTA_CHARACTERS, self._due[self._next - 1])
        self.read.add(self._next * DELTA_CHARACTERS, now)
        is_last = self._next == len(self._parts)
        return b"".join(map(_chunk, self._parts[first : self._next])) + (_END if is_last else b"")

    def listen(self, more: Callable[[], None] | None) -> None:
        self._more = more

    def _ring(self) -> None:
        self._alarm = None
        if self._more is not None:
            self._more()

    # A `drive.Client`.

    is_full = False

    def write(self, _: bytes) -> None:
        assert self._stream is not None
        self.released.add(self._stream.delivered(CONTENT), time.monotonic())

    def write_last(self, data: bytes) -> None:
        self.write(data)

    def beat(self) -> None: ...

    async def drain(self) -> None: ...

    def waits(self, after: float) -> Iterator[tuple[float, ...]]:
        """Of each character that came after that time: the whole wait, and its parts."""
        for character in range(len(self._parts) * DELTA_CHARACTERS):
            marks = (self.arrived, self.read, self.handed, self.judged, self.released)
            times = [one.time_of(character) for one in marks]
            if times[0] >= after:
                yield (times[-1] - times[0], *(later - one for one, later in pairwise(times)))


class _Marked:
    """The guard's stream of a prompt, whose fork marks how much was handed over, and judged."""

    slides = 0

    def __init__(self, stream: GuardStream, handed: Marks, judged: Marks, *, skips: int = 0) -> None:
        """`skips`: tokens of the frame, which are no part of the text."""
        self._stream, self._handed, self._judged, self._skips = stream, handed, judged, skips
        self._handed_bytes = 0

    @property
    def position(self) -> int:
        return self._stream.position

    def fork(self) -> GuardStream:
        return _Marked(self._stream.fork(), self._handed, self._judged, skips=FRAME_TOKENS)

    def ask(self, position: int, ids: Sequence[int], heard: Heard) -> None:
        self._handed_bytes += len(decode_bytes(list(ids[self._skips :])))
        self._skips = 0
        end = self._handed_bytes - FRAME_BYTES
        self._handed.add(end, time.monotonic())

        def judged(found: list[Risk] | Exception) -> None:
            self._judged.add(end, time.monotonic())
            heard(found)

        self._stream.ask(position, ids, judged)

    def give_up(self) -> None:
        self._stream.give_up()

    async def close(self) -> None:
        await self._stream.close()


def _chunk(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return _event({"choices": [choice]})


def _event(more: dict[str, object]) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return f"data: {json.dumps(head | more)}\n\n".encode()


_END = _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + b"data: [DONE]\n\n"
PARTS = {
    "held, in all": "from arrival to release",
    "unread": "while the verdict before it is awaited",
    "retokenizer": "until no later text changes its token",
    "guard": "its question at the engine's door",
    "undecided run": "until the flags before it are a run or none",
}
ENGINE = {"door_lag_seconds": "at the door", "lag_seconds": "its queue and step", "step_seconds": "a step"}


Waits = list[list[float]]  # seconds, sorted; a list for each of PARTS


async def play(
    guard: Guard, policy: Policy, *, streams: int, rate: float, seconds: float, warm: float, on_warm: Callable[[], None]
) -> Waits:
    """Of every character that came after `warm` seconds."""
    begin = time.monotonic() + 0.1
    plays = [Play(guard, policy, number, rate, int((warm + seconds) * rate), begin) for number in range(streams)]
    async with asyncio.TaskGroup() as group:
        for one in plays:
            group.create_task(one.run())
        await asyncio.sleep(begin + warm - time.monotonic())
        on_warm()
    return [sorted(part) for part in zip(*(wait for one in plays for wait in one.waits(begin + warm)), strict=True)]


async def measure(wanted: argparse.Namespace) -> tuple[Waits, Metrics, Metrics]:
    """With the engine's numbers before and after."""
    settings = load_settings(overrides={"guard.model": wanted.guard, "guard.device": "cpu"}, environ={})
    guard = await open_guard(settings)
    assert isinstance(guard, ProcessGuard)
    before: list[Metrics] = []
    try:
        waits = await play(
            guard,
            policy_of(settings.policy),
            streams=wanted.streams,
            rate=wanted.rate,
            seconds=wanted.seconds,
            warm=WARM_SECONDS,
            on_warm=lambda: before.append(guard.metrics()),
        )
        return waits, before[0], guard.metrics()
    finally:
        await guard.close()


def report(wanted: argparse.Namespace, waits: Waits, before: Metrics, after: Metrics) -> Iterator[Table | str]:
    title = f"A character's wait: {wanted.streams} streams, {wanted.rate:g} tokens/s each, {wanted.guard} guard; ms"
    table = Table("", "p50", "p99", "", title=title)
    for (name, said), part in zip(PARTS.items(), waits, strict=True):
        table.add_row(name, *(f"{percentile(part, fraction) * 1e3:.1f}" for fraction in (0.5, 0.99)), said)
    for name, said in ENGINE.items():
        one: Histogram = getattr(after, name).since(getattr(before, name))
        p50, p99 = (f"{one.percentile(fraction) * 1e3:.1f}" for fraction in (0.5, 0.99))
        table.add_row(f"  guard: {said}", p50, p99, "of questions, to within a bucket")
    yield table
    streams: Histogram = after.batch_streams.since(before.batch_streams)
    aims = " and ".join(f"p{p} {aim:g} ms" for p, aim in zip((50, 99), AIMS_MS, strict=True))
    yield (
        f"{len(waits[0]):,} characters; a step had {streams.mean:.1f} streams. Aims at 50 streams of 50: {aims}.\n"
        "Parts of one character add up to its wait; percentiles of parts do not.\n"
        f"Repeat it: python -m bench.hold --streams {wanted.streams} --rate {wanted.rate:g} "
        f"--seconds {wanted.seconds:g} --guard {wanted.guard}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--rate", type=float, default=50.0, help="tokens a second of each")
    parser.add_argument("--seconds", type=float, default=20.0, help="that are counted")
    parser.add_argument("--guard", default="embedded")
    wanted = parser.parse_args()
    console = Console()
    for part in report(wanted, *uvloop.run(measure(wanted))):
        console.print(part)


if __name__ == "__main__":
    main()
