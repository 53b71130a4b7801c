"""A mixed load: answers that are safe, that turn, that break, clients that leave, a guard that lies now and then."""

import asyncio
import collections
import json
import random
import re
from contextlib import suppress
from dataclasses import dataclass, field

from proxy.policy import Policy
from tests.driver import answer
from tests.fakes import framed
from tests.faults.engine import ScriptedEngine
from tests.faults.reading import Seen, see
from tests.faults.slow_model import onset
from tests.sockets import connected, http_request

WORDS = ["one", " two", " three", " four", " five", " six", ".", "\n", " é", " 世", " some", " more"]
LEAVERS, FAULTS = 0.05, 0.02
UPSTREAM_FAULTS = ("reset", "garbage", "stall", "refuses")
GUARD_FAULTS = ("not finite", "short", "crash", "delay", "foreign")
# A stream takes far less, whatever breaks.
PATIENCE_SECONDS = 30.0
# The upstream lets a connection go that nobody uses: what is left then is left for good.
IDLE_SECONDS = 2.0


@dataclass(frozen=True)
class Scene:
    """One request: what the upstream says to it, and when the client leaves."""

    text: str
    pause: float
    fault: str | None = None
    fault_at: int = 0
    leaves: float | None = None

    @property
    def parts(self) -> list[bytes]:
        return answer(re.findall(r"\s?\S+|\s", self.text))


def scene_of(rng: random.Random, pace: float) -> Scene:
    words = rng.choices(WORDS, k=rng.randint(5, 60))
    if rng.random() < 0.3:
        words[rng.randrange(len(words))] = " bad bad bad"
    chance = rng.random()
    leaves = rng.random() * pace * len(words) if chance < LEAVERS else None
    fault = rng.choice(UPSTREAM_FAULTS) if LEAVERS <= chance < LEAVERS + FAULTS / 2 else None
    return Scene("".join(words), rng.random() * pace * 2, fault, rng.randrange(1, 6), leaves)


@dataclass
class Tally:
    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    lost: list[str] = field(default_factory=list)
    leak: int = 0  # characters, of the worst stream
    lies: int = 0


class Upstream:
    """Answers by the model's name, which is a scene's."""

    def __init__(self) -> None:
        self.scenes: dict[str, Scene] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                while await self._answer(reader, writer):
                    pass
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(IDLE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        asked = json.loads(await reader.readexactly(int(length[1]) if length else 0))
        if (scene := self.scenes.get(asked["model"])) is None:
            return False  # whoever asked has left meanwhile
        if scene.fault == "refuses":
            writer.write(b"HTTP/1.1 500 X\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
            return True
        writer.write(framed(b"", "chunked")[: -len(b"0\r\n\r\n")])
        for number, part in enumerate(scene.parts):
            if number == scene.fault_at and scene.fault is not None:
                if scene.fault == "garbage":
                    part = b"data: {\n\n"
                elif scene.fault == "stall":
                    await reader.read(1)  # until we are hung up on
                    return False
                else:
                    return False
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
            await asyncio.sleep(scene.pause)
        writer.write(b"0\r\n\r\n")
        return True


async def ask(url: str, name: str, scene: Scene) -> Seen | None:
    """None: the client has left."""
    async with asyncio.timeout(PATIENCE_SECONDS), connected(url) as client:
        await client.send(http_request(model=name, stream=True))
        if scene.leaves is not None:
            await asyncio.sleep(scene.leaves)
            client.leave(reset=len(scene.text) % 2 == 0)
            return None
        await client.reply()
        return see(client.received)


def judge(scene: Scene, seen: Seen, tally: Tally) -> None:
    """`lost`: an end that was not told, or text that is not what was said up to where it was flagged."""
    flagged = onset(scene.text, "\n\n", Policy())
    bound = len(scene.text) if flagged is None else flagged
    tally.ends[seen.outcome] += 1
    tally.leak = max(tally.leak, len(seen.text) - bound)
    is_whole = seen.outcome not in ("complete", "cut") or seen.text == scene.text[:bound]
    is_true = (seen.outcome != "complete" or flagged is None) and (seen.outcome != "cut" or flagged is not None)
    if seen.outcome in ("broken", "nothing") or not scene.text.startswith(seen.text) or not is_whole or not is_true:
        tally.lost.append(f"{scene} -> {seen.outcome} {seen.text!r}")


async def run_load(url: str, upstream: Upstream, engine: ScriptedEngine, *, streams: int, seconds: float,
                   seed: int, pace: float, tally: Tally) -> None:  # fmt: skip
    """Keep `streams` requests under way for so long."""
    rng, clock = random.Random(seed), asyncio.get_running_loop()
    end = clock.time() + seconds
    numbers = iter(range(1 << 60))

    async def user() -> None:
        while clock.time() < end:
            name, scene = f"s-{next(numbers)}", scene_of(rng, pace)
            upstream.scenes[name] = scene
            if rng.random() < FAULTS / 2:
                tally.lies += 1
                engine.arm(rng.choice(GUARD_FAULTS), rng.randrange(20))
            try:
                seen = await ask(url, name, scene)
            except TimeoutError:
                tally.lost.append(f"{scene} -> hangs")
                continue
            finally:
                del upstream.scenes[name]
            if seen is None:
                tally.ends["left"] += 1
            else:
                judge(scene, seen, tally)

    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(user())
