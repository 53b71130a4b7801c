"""The fault matrix: a toxic on one of three links, or a guard that lies, in one of five phases and one of four modes.

Each cell is one streamed answer through a Weir of its own. What must hold whatever breaks: nothing leaks, nothing
hangs, the end is told, no stream of the guard stays open, and one record is written that agrees with the client.
"""

import asyncio
import json
import random
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from proxy.app import running
from proxy.config import load_settings
from proxy.guard.client import Address
from proxy.guard.limits import Limits
from proxy.guard.process import attach_guard
from proxy.guard.settings import GuardSettings
from proxy.retokenizer import encode
from tests.driver import WORDS, answer
from tests.fakes import ScriptedGuard, ScriptedUpstream, labels
from tests.faults.engine import LIES, ScriptedEngine
from tests.faults.reading import Seen, see
from tests.faults.toxics import TOXICS, Frames, Place, Relay, Start, Text, Toxic
from tests.servers import Records, recorded
from tests.sockets import connected, http_request

LINKS = ("client", "upstream", "guard")
PHASES = ("connect", "head", "first event", "mid answer", "end")
MODES: dict[str, dict[str, Any]] = {
    "hold": {},
    "window": {"policy.release": "window", "policy.window": 6},
    "annotate": {"policy.on_flag": "annotate"},
    "monitor": {"policy.on_flag": "monitor"},
}
WAITS: dict[str, Any] = {
    "server.port": 0,
    "server.max_lag_seconds": 3600,
    "server.drain_seconds": 0.2,
    "server.request_seconds": 0.6,
    "server.send_seconds": 0.6,
    "upstream.connect_seconds": 0.4,
    "upstream.first_byte_seconds": 0.6,
    "upstream.idle_seconds": 0.6,
    "guard.verdict_seconds": 0.4,
    "guard.admission_seconds": 0.2,
    "policy.notice": "",
}
TEXT = "".join(WORDS)
TURNING = "SSSSSUUSSS"
ONSET = len("".join(WORDS[:5]))
# Far above the sum of all waits, on a machine that does much else: what takes longer hangs.
HANG_SECONDS = 20.0
# A client whose own link is ill gives up after this.
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class Cell:
    fault: str
    link: str  # or "verdict": the guard itself lies
    phase: str
    mode: str
    seed: int = 0

    @property
    def is_turning(self) -> bool:
        """Is there anything to flag in the answer?"""
        return random.Random(f"turning {self}").random() < 0.7

    def __str__(self) -> str:
        return f"{self.fault} / {self.link} / {self.phase} / {self.mode} / seed {self.seed}"


@dataclass
class Result:
    cell: Cell
    outcome: str = "nothing"
    leak: int = 0
    delivered: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def cells(seeds: int = 1) -> Iterator[Cell]:
    for seed in range(seeds):
        for phase in PHASES:
            for mode in MODES:
                yield from (Cell(toxic, link, phase, mode, seed) for toxic in TOXICS for link in LINKS)
                yield from (Cell(lie, "verdict", phase, mode, seed) for lie in LIES)


def some_cells(count: int, seed: int) -> list[Cell]:
    """A slice that has each fault on each link, in phases and modes that the seed picks."""
    rng = random.Random(seed)
    kinds: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells():
        kinds.setdefault((cell.fault, cell.link), []).append(cell)
    found = [replace(rng.choice(each), seed=seed) for each in kinds.values()]
    rest = [cell for cell in cells() if replace(cell, seed=seed) not in found]
    return found + [replace(cell, seed=seed) for cell in rng.sample(rest, max(0, count - len(found)))]


class RecordsByPolicy(Records):
    """Cells run side by side; each has a policy's name of its own, which its record says."""

    def of(self, name: str) -> list[Any]:
        return [record for line in self.lines if (record := json.loads(line)).get("policy") == name]


def place_of(link: str, phase: str) -> Place | None:
    if phase == "connect":
        return None
    if phase == "head":
        return Start()
    if link == "guard":  # its greeting and its pulse were before
        return Frames({"first event": 1, "mid answer": 5, "end": 9}[phase])
    patterns = {"first event": rb"data:", "mid answer": rb"data:", "end": rb'"finish_reason": ?"\w+"'}
    return Text(patterns[phase], 6 if phase == "mid answer" else 1)


QUESTIONS = {"connect": 0, "head": 1, "first event": 2, "mid answer": 5, "end": 9}


@dataclass
class Stage:
    """All that stands around one cell."""

    url: str
    upstream: ScriptedUpstream
    guard: Any  # a ScriptedGuard or a RemoteGuard
    engine: ScriptedEngine | None

    @property
    def open_streams(self) -> int:
        if self.engine is None:
            return int(self.guard.slots)
        return int(self.guard.streams) + len(self.engine.streams)


@asynccontextmanager
async def staged(cell: Cell, rng: random.Random, name: str) -> AsyncIterator[Stage]:
    """Weir between relays. The ill link is healthy until Weir has started."""
    rule = labels(TURNING if cell.is_turning else "")
    upstream = ScriptedUpstream(answer(WORDS), pause=0.003)
    toxic = Toxic(cell.fault, place_of(cell.link, cell.phase), rng.random() < 0.5, rng.random() < 0.5)
    folder = tempfile.mkdtemp(prefix="weir-")
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        await stack.enter_async_context(upstream.running())
        guard: Any = ScriptedGuard(rule)
        engine = None
        if cell.link in ("guard", "verdict"):
            engine = ScriptedEngine(rule)
            await stack.enter_async_context(engine.running(f"{folder}/engine"))
            link = await stack.enter_async_context(Relay(f"{folder}/engine").running(f"{folder}/link"))
            limits = Limits(admission_seconds=WAITS["guard.admission_seconds"])
            settings = GuardSettings(verdict_seconds=0.4, open_seconds=0.6, limits=limits)
            guard = await attach_guard(Address(path=f"{folder}/link"), "", GuardSettings())
            guard.settings = settings  # short waits only once it is there: cells beside this one start, too
            stack.push_async_callback(guard.close)
        base_url = upstream.url
        if cell.link == "upstream":
            base_url = (await stack.enter_async_context(Relay(_host_port(base_url), toxic).running())).url
        values = WAITS | MODES[cell.mode] | {"upstream.base_url": base_url, "policy.name": name}
        port = await stack.enter_async_context(running(load_settings(overrides=values, environ={}), guard))
        url = f"http://127.0.0.1:{port}"
        if cell.link == "client":
            url = (await stack.enter_async_context(Relay(("127.0.0.1", port), toxic).running())).url
        elif cell.link == "guard":
            await link.arm(toxic)
        elif engine is not None:
            engine.arm(cell.fault, QUESTIONS[cell.phase], goes_on=rng.random() < 0.5)
            engine.delay = rng.choice([0.05, 0.8])
        yield Stage(url, upstream, guard, engine)


def _host_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def run(cell: Cell, records: RecordsByPolicy) -> Result:
    rng = random.Random(str(cell))
    name = re.sub(r"[^a-z0-9]", "-", str(cell))
    clock = asyncio.get_running_loop()
    result = Result(cell)
    try:
        async with asyncio.timeout(HANG_SECONDS), staged(cell, rng, name) as stage:
            begin = clock.time()
            seen = await _ask(cell, stage.url)
            result.seconds = clock.time() - begin
            if not await _until(lambda: stage.open_streams == 0):
                result.problems.append(f"{stage.open_streams} streams of the guard stay open")
            is_asked = seen.status is not None or bool(stage.upstream.requests)
            await _until(lambda: len(records.of(name)) >= is_asked)
            check(result, seen, records.of(name), is_asked=is_asked)
            if not await _until(lambda: not stage.upstream.requests or _is_over(stage.upstream)):
                result.problems.append("the upstream still answers")
    except TimeoutError:
        result.problems.append(f"it hangs for {HANG_SECONDS} s")
    return result


def _is_over(upstream: ScriptedUpstream) -> bool:
    return upstream.closed_early + upstream.answered >= len(upstream.requests)


async def _ask(cell: Cell, url: str) -> Seen:
    patience = PATIENCE_SECONDS if cell.link == "client" else HANG_SECONDS
    raw, gave_up = b"", False
    with suppress(ConnectionError):
        async with connected(url) as client:
            try:
                async with asyncio.timeout(patience):
                    with suppress(ConnectionError):
                        await client.send(http_request(stream=True))
                        await client.reply()
            except TimeoutError:
                gave_up = True
            raw = client.received
    return see(raw, gave_up=gave_up)


async def _until(is_true: Callable[[], bool]) -> bool:
    for _ in range(1500):
        if is_true():
            return True
        await asyncio.sleep(0.01)
    return False


def check(result: Result, seen: Seen, records: list[Any], *, is_asked: bool) -> None:
    result.outcome, result.delivered = seen.outcome, len(seen.text)
    if not TEXT.startswith(seen.text):
        result.problems.append(f"altered text: {seen.text!r}")
    check_leak(result, seen)
    check_end(result, seen)
    check_records(result, seen, records, is_asked=is_asked)


def check_leak(result: Result, seen: Seen) -> None:
    cell, bound = result.cell, ONSET if result.cell.is_turning else len(TEXT)
    if cell.mode not in ("hold", "window"):
        return
    result.leak = max(0, len(seen.text) - bound)
    if result.leak > MODES[cell.mode].get("policy.window", 0):
        result.problems.append(f"a leak of {result.leak} characters")
    if cell.mode == "hold" and (windows := seen.windows_of(TEXT[bound:])):
        result.problems.append(f"a leak beside the text: {windows}")
    if seen.outcome == "complete" and cell.is_turning:
        result.problems.append("a flagged answer is complete")
    if seen.outcome == "cut" and (not cell.is_turning or len(seen.text) < bound):
        result.problems.append("a cut where nothing is flagged, or before it")


def check_end(result: Result, seen: Seen) -> None:
    if seen.outcome == "complete" and seen.text != TEXT:
        result.problems.append("an answer passes for complete, and is not")
    if result.cell.link == "client":
        return  # its own link broke, and it can tell
    if seen.gave_up:
        result.problems.append("no end within the client's patience")
    if seen.outcome in ("broken", "nothing"):
        result.problems.append(f"the end is not told: {seen.outcome}")


def check_records(result: Result, seen: Seen, records: list[Any], *, is_asked: bool) -> None:
    if len(records) > 1 or len(records) < is_asked:
        result.problems.append(f"{len(records)} records")
    elif records and result.cell.link != "client" and records[0]["outcome"] != seen.outcome:
        result.problems.append(f"the record says {records[0]['outcome']}, the client {seen.outcome}")
    elif records and result.cell.link == "client":
        [record] = records
        most = sum(channel["delivered"] for channel in record["channels"])
        if len(seen.text) > most:
            result.problems.append("more was read than the record knows of")


async def run_all(wanted: list[Cell], report: Callable[[Result], None], at_once: int) -> None:
    places = asyncio.Semaphore(at_once)
    records = RecordsByPolicy()

    async def run_one(cell: Cell) -> None:
        async with places:
            report(await run(cell, records))

    encode("warm up")  # takes a second, which would be one of the first cell's
    with recorded(records):
        async with asyncio.TaskGroup() as group:
            for cell in wanted:
                group.create_task(run_one(cell))
