"""What an engine's process does for a question beside the GPU's work, and how long messages are: measured here.

    python -m bench.fleet.host

The real server, scheduler, page accounting, packing and wire, over a real socket, with a runner that packs a step for a
GPU and unpacks what one would have answered. Time is that of the server's turns: reading, planning, packing, answering.
"""

import contextlib
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from proxy.guard.black_box import BlackBox
from proxy.guard.cache import Change
from proxy.guard.commands import Command, Feed, Open
from proxy.guard.engine import Engine
from proxy.guard.engine_loop import EngineLoop
from proxy.guard.limits import Limits
from proxy.guard.packing import OUTPUT_WIDTH, OUTPUTS, Layout, Tiles, bucket_sizes, pack, split, unpack
from proxy.guard.pages import PAGE_TOKENS, PageCache
from proxy.guard.protocol import GuardError, GuardInfo
from proxy.guard.sequence import Chunk
from proxy.guard.server import EngineServer
from proxy.guard.wire import VERSION, Answers, FrameDecoder, Hello, decode_news, encode, frame
from proxy.risk import Role

CONTEXT_TOKENS = 512
VOCABULARY = 151_936
KV_BYTES_PER_TOKEN = 112 << 10
WINDOW = 8192
ROUNDS, WARM_ROUNDS = 40, 5


class HostRunner:
    """A `devices.AnyRunner` that does all but the GPU's part."""

    vocabulary = VOCABULARY
    kv_bytes_per_token = KV_BYTES_PER_TOKEN
    held_bytes = 0

    def __init__(self, streams: int) -> None:
        limits = Limits()
        self._tiles = Tiles(16, 64)
        sizes = bucket_sizes(limits.step + limits.piece)
        self._layouts = {size: Layout.of(size, self._tiles) for size in sizes}
        pages = (streams + 1) * WINDOW // PAGE_TOKENS
        self._buffer = np.zeros(self._layouts[sizes[-1]].tables + pages, np.int32)
        self._most = sizes[-1], pages
        self._outputs = np.zeros((sizes[-1], OUTPUT_WIDTH), np.float32)
        for columns in OUTPUTS.values():
            self._outputs[:, columns][:, [0, 3]] = 1.0  # a level and a category, each certain

    def default_budget_bytes(self, share: float | None = None) -> int:
        return (self._most[1] * PAGE_TOKENS) * KV_BYTES_PER_TOKEN

    def tokens_in(self, budget_bytes: int) -> int:
        return budget_bytes // KV_BYTES_PER_TOKEN

    def use_threads(self, count: int | None) -> None: ...

    def new_cache(self, budget_bytes: int, window: int) -> PageCache:
        return PageCache(bytes_per_token=KV_BYTES_PER_TOKEN, budget_bytes=budget_bytes, window=window)

    def reset(self) -> None: ...

    def prepare(self, changes: Sequence[Change]) -> None: ...

    def run(self, chunks: Sequence[Chunk]) -> list[bytes | GuardError]:
        answers: list[bytes | GuardError] = []
        for batch in split(chunks, *self._most):
            tokens = sum(chunk.count for chunk in batch)
            layout = next(layout for size, layout in self._layouts.items() if size >= tokens)
            packed = pack(batch, layout, self._tiles, self._buffer)
            answers += unpack(self._outputs[:tokens], packed)
        return answers


@dataclass(frozen=True, slots=True)
class Load:
    """Streams that ask at once, tokens of each, and proxies that they come from."""

    streams: int
    tokens: int = 1
    proxies: int = 1


# The fit is of those from one proxy.
LOADS = (
    *(Load(streams) for streams in (1, 64, 256, 512, 1000)),
    *(Load(streams, 4) for streams in (64, 256)),
    *(Load(128, 1, proxies) for proxies in (1, 16, 128)),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a step with such a load."""

    load: Load
    seconds: float
    sent_bytes: int  # by the proxies
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Fit:
    """Seconds of a step on the host: a part of its own, one a question, one a token."""

    step: float
    question: float
    token: float

    def seconds(self, load: Load) -> float:
        return self.step + load.streams * (self.question + load.tokens * self.token)


class Host:
    """A server and its proxies, in turns in one thread."""

    def __init__(self, load: Load, folder: Path) -> None:
        runner, self._load, self._tickets = HostRunner(load.streams), load, 0
        engine = Engine(runner, window=WINDOW, budget_bytes=runner.default_budget_bytes())
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "host.sock"))
        self._listener.listen(load.proxies)
        info = GuardInfo("host", "", WINDOW)
        self._server = EngineServer(EngineLoop(engine), info, VOCABULARY, {self._listener: ""}, BlackBox())
        self._peers = [Peer(folder / "host.sock", number) for number in range(load.proxies)]
        while not all(peer.is_greeted for peer in self._peers):
            self._turn()

    def open(self) -> None:
        for stream in range(self._load.streams):
            ids = [(stream * 7919 + position) % VOCABULARY for position in range(CONTEXT_TOKENS)]
            self._ask({stream: Open(self._ticket(), stream, ids, [CONTEXT_TOKENS - 1], Role.USER, "")})

    def step(self, number: int) -> tuple[float, int, int]:
        """Seconds of the server's turns, bytes to and from it. All streams ask at once, for one step."""
        ids = list(range(self._load.tokens))
        position = CONTEXT_TOKENS + number * self._load.tokens
        streams = range(self._load.streams)
        return self._ask({stream: Feed(self._ticket(), stream, position, ids) for stream in streams})

    def close(self) -> None:
        self._server.close()
        for peer in self._peers:
            peer.socket.close()
        self._listener.close()

    def _ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def _ask(self, commands: dict[int, Command]) -> tuple[float, int, int]:
        sent, received, seconds = 0, 0, 0.0
        for number, peer in enumerate(self._peers):
            own = [command for stream, command in commands.items() if stream % len(self._peers) == number]
            if own:
                body = frame(encode(own))
                peer.unsent += body
                sent += len(body)
        answered = 0
        while answered < len(commands):
            seconds += self._turn()
            for peer in self._peers:
                count, size = peer.take()
                answered, received = answered + count, received + size
        return seconds, sent, received

    def _turn(self) -> float:
        """All proxies write before the server looks, so that a step is one."""
        for peer in self._peers:
            peer.write()
        started = time.process_time()
        self._server.turn(0.0)
        seconds = time.process_time() - started
        for peer in self._peers:
            peer.read()
        return seconds


class Peer:
    """A proxy's end of its connection."""

    def __init__(self, path: Path, number: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.setblocking(False)
        self.unsent = bytearray(frame(encode(Hello(VERSION, number + 1))))
        self.is_greeted = False
        self._decoder = FrameDecoder()
        self._bodies: list[bytes] = []

    def write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                del self.unsent[: self.socket.send(self.unsent)]

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._bodies += self._decoder.feed(self.socket.recv(1 << 20))
        if self._bodies and not self.is_greeted:
            self.is_greeted = True
            self._bodies.clear()

    def take(self) -> tuple[int, int]:
        """Answers that have come, and their bytes."""
        count = size = 0
        for body in self._bodies:
            news = decode_news(body)
            if isinstance(news, Answers):
                count, size = count + len(news.answers), size + len(body)
                assert not any(answer.error for answer in news.answers), news.answers
        self._bodies.clear()
        return count, size


def measure(loads: Sequence[Load] = LOADS, rounds: int = ROUNDS) -> list[Cost]:
    found = []
    for load in track(loads, "engine's host", console=Console(stderr=True)):
        with tempfile.TemporaryDirectory() as folder:
            host = Host(load, Path(folder))
            try:
                host.open()
                taken = [host.step(number) for number in range(WARM_ROUNDS + rounds)][WARM_ROUNDS:]
            finally:
                host.close()
        found.append(Cost(load, median(seconds for seconds, _, _ in taken), *taken[-1][1:]))
    return found


def fit(costs: Sequence[Cost]) -> Fit:
    """By least squares of the shares, so that a small step counts as much as a large one."""
    costs = [cost for cost in costs if cost.load.proxies == 1]
    rows = np.array([[1.0, cost.load.streams, cost.load.streams * cost.load.tokens] for cost in costs])
    seconds = np.array([cost.seconds for cost in costs])
    step, question, token = np.linalg.lstsq(rows / seconds[:, None], np.ones(len(costs)), rcond=None)[0]
    return Fit(float(step), float(question), float(token))


def main() -> None:
    costs = measure()
    found = fit(costs)
    table = Table(title="A step on the host, without the GPU", title_justify="left")
    for name in ("streams x tokens", "proxies", "ms", "by the fit", "us a question", "bytes of one", "of its answer"):
        table.add_column(name, justify="right")
    for cost in costs:
        load = cost.load
        each = [f"{number / load.streams:.0f}" for number in (cost.sent_bytes, cost.received_bytes)]
        guessed = f"{found.seconds(load) * 1e3:.2f}" if load.proxies == 1 else ""
        times = (f"{cost.seconds * 1e3:.2f}", guessed, f"{cost.seconds / load.streams * 1e6:.1f}")
        table.add_row(f"{load.streams} x {load.tokens}", f"{load.proxies}", *times, *each)
    console = Console()
    console.print(table)
    parts = (f"{part * 1e6:.1f}" for part in (found.step, found.question, found.token))
    console.print("microseconds: {} a step, {} a question, {} a token".format(*parts))


if __name__ == "__main__":
    main()
