"""Many engines as one guard: a stream is pinned to one of them, and moves to another when that one is gone.

Which engines there are somebody else says (`places`); between a proxy and an engine there is one connection, with one
message a tick each way. An engine that died in its place is back in a moment, and its streams wait for it there: so
a text that kills engines is told from the others. One that is gone for longer, with its machine perhaps, loses its
streams to the others at once: each is opened again with all its tokens.
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import Sequence
from functools import partial
from typing import Protocol, TypeVar

from proxy.guard.answer import Later, classify
from proxy.guard.client import EngineClient
from proxy.guard.door import GuardDoor
from proxy.guard.metrics import Metrics, summed
from proxy.guard.places import Place, Places
from proxy.guard.protocol import GuardFault, GuardInfo, GuardUnavailable, Health, Heard
from proxy.guard.settings import GuardSettings
from proxy.guard.streams import KeptStream
from proxy.guard.wire import PULSE_SECONDS
from proxy.risk import Risk, Role

# An engine that is replaced in its place is back within this; else its streams move.
PATIENCE_SECONDS = 1.0
# An engine says every second that it lives, but for its steps. A machine that has died says nothing at all. Where that
# is noticed late the deadline of a verdict has passed; this share of it leaves time for another engine's.
SILENT_SHARE = 0.5
# A question may see so many engines go; that it was the cause is then more likely than bad luck.
MAX_MOVES = 2
# To connect to an engine that was found.
GREETING_SECONDS = 5.0


class MemberDoor(GuardDoor):
    """A door that knows whether it has failed."""

    is_lost = False

    def failed(self, error: GuardUnavailable) -> None:
        """See `door.GuardDoor`."""
        self.is_lost = True
        super().failed(error)


class Member:
    """One engine of the fleet."""

    def __init__(self, place: Place, settings: GuardSettings) -> None:
        self.place = place
        self.door = MemberDoor(settings)
        silent = max(2 * PULSE_SECONDS, SILENT_SHARE * settings.verdict_seconds)
        self.client = EngineClient(
            self.door, place.address, place.token, patience_seconds=PATIENCE_SECONDS, silent_seconds=silent
        )

    @property
    def is_lost(self) -> bool:
        return self.door.is_lost

    @property
    def load(self) -> int:
        """Streams: the engine's own count is of all proxies, and a second old."""
        return max(self.door.metrics().streams, self.door.streams)

    async def close(self) -> None:
        await self.door.close()
        await self.client.close()


class FleetStream:
    """A `protocol.GuardStream`, pinned to a member for as long as that lives."""

    def __init__(self, fleet: "FleetGuard", member: Member, stream: KeptStream) -> None:
        self._fleet, self._member, self._stream = fleet, member, stream
        self._moving: Later[list[Risk]] | None = None  # with a question

    @property
    def position(self) -> int:
        return self._stream.position

    @property
    def slides(self) -> int:
        return self._stream.slides

    @property
    def engine(self) -> str:
        """The name of the engine that has it, or had it last."""
        return self._member.place.name

    def ask(self, position: int, ids: Sequence[int], heard: Heard) -> None:
        """See `protocol.GuardStream`."""
        self._stream.ask(position, ids, partial(self._heard, position, ids, heard))

    def _heard(self, position: int, ids: Sequence[int], heard: Heard, found: list[Risk] | Exception) -> None:
        if isinstance(found, GuardUnavailable) and self._fleet.has_lost(self._member):
            self._moving = Later(self._ask_elsewhere(position, ids), heard)
        else:
            heard(found)

    def give_up(self) -> None:
        """See `protocol.GuardStream`."""
        self._stream.give_up()
        if self._moving is not None:
            self._moving.give_up()

    async def _ask_elsewhere(self, position: int, ids: Sequence[int]) -> list[Risk]:
        """Of another member, which then has the stream; what it has to read before comes with the question."""
        for _ in range(MAX_MOVES):
            member = await self._fleet.choose()
            self._member, self._stream = member, self._stream.copy(member.door)
            self._fleet.moves += 1
            try:
                return await classify(self._stream, position, ids)
            except GuardUnavailable:
                if not self._fleet.has_lost(member):
                    raise
        raise GuardFault(f"{MAX_MOVES + 1} engines of the guard went while they judged this input")

    def fork(self) -> "FleetStream":
        """See `protocol.GuardStream`."""
        return FleetStream(self._fleet, self._member, self._stream.fork())

    async def close(self) -> None:
        """See `protocol.GuardStream`."""
        await self._stream.close()


class Loaded(Protocol):
    @property
    def load(self) -> int: ...


M = TypeVar("M", bound=Loaded)


def fewer_of_two(members: Sequence[M]) -> M:
    """Of two by lot the one with the smaller load.

    Not the smallest of all: what the members tell of themselves is a second old, and all proxies would give all their
    new streams of that second to one and the same (`bench.fleet` plays both).
    """
    return min(random.sample(members, min(2, len(members))), key=lambda member: member.load)


class FleetGuard:
    """A `protocol.Guard`. Made and used on one event loop."""

    def __init__(self, places: Places, settings: GuardSettings) -> None:
        self.settings = settings
        self.moves = 0  # of streams, from an engine that was gone
        self.places = places
        self._members: dict[Place, Member] = {}
        self._info: GuardInfo | None = None
        self._strangers: set[str] = set()  # engines of another guard, which were told of
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._is_closed = False

    # `protocol.Guard`.

    @property
    def info(self) -> GuardInfo:
        assert self._info is not None  # nobody has a guard before its first engine is there
        return self._info

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple[FleetStream, list[Risk]]:
        """See `protocol.Guard` and `door.GuardDoor`."""
        for _ in range(MAX_MOVES + 1):
            member = await self.choose()
            try:
                stream, risks = await member.door.open(ids, read=read, role=role, owner=owner)
                return FleetStream(self, member, stream), risks
            except GuardUnavailable:
                if not self.has_lost(member):
                    raise
        raise GuardFault(f"{MAX_MOVES + 1} engines of the guard went while they judged this input")

    async def health(self) -> Health:
        """See `protocol.Guard`. Ready where one engine is."""
        found = await asyncio.gather(*(member.door.health() for member in self.members))
        ready = [health for health in found if health.is_ready]
        if not ready:
            return Health(False, found[0].detail if found else "no engine of the fleet is there", 0.0)
        seconds = max(health.seconds for health in ready)
        said = f"{len(ready)} of {len(found)} engines judged their canary, the last in {seconds * 1e3:.1f} ms"
        return Health(True, said, seconds)

    async def close(self) -> None:
        """See `protocol.Guard`. The engines stay."""
        self._is_closed = True
        self._changed.set()
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        await self.places.close()
        await asyncio.gather(*(member.close() for member in self._members.values()))

    def metrics(self) -> Metrics:
        """Of all engines that are there."""
        return summed(member.door.metrics() for member in self.members)

    @property
    def streams(self) -> int:
        """Streams that are open here."""
        return sum(member.door.streams for member in self._members.values())

    @property
    def members(self) -> list[Member]:
        """The engines that are there."""
        return [member for member in self._members.values() if not member.is_lost]

    @property
    def loads(self) -> dict[str, int]:
        """Streams by the name of the engine that has them."""
        return {member.place.name: member.load for member in self.members}

    async def start(self, seconds: float) -> None:
        """Wait for the first engine that passes its check. Raises GuardUnavailable, with the guard closed."""
        try:
            await self.places.start()
            # This task lives as long as the guard: `close` ends it.
            self._following = asyncio.get_running_loop().create_task(self._follow(), name="guard-fleet")
            await self.choose(seconds)
            health = await self.health()
            if not health.is_ready:
                raise GuardUnavailable(f"guard {self.info.model} did not pass its first check: {health.detail}")
        except BaseException:
            await self.close()
            raise

    # For streams.

    async def choose(self, seconds: float | None = None) -> Member:
        """One of the members; one that is drained only where there is no other.

        Raises GuardUnavailable where none comes within `seconds`, a verdict's deadline by default.
        """
        try:
            async with asyncio.timeout(self.settings.verdict_seconds if seconds is None else seconds):
                while not (found := self.members):
                    if self._is_closed:
                        raise GuardUnavailable("the guard is closed")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as exc:
            raise GuardUnavailable(f"no engine of the fleet is there: {self.places.detail}") from exc
        return fewer_of_two([member for member in found if not member.place.is_draining] or found)

    def has_lost(self, member: Member) -> bool:
        """Whether what it was asked has to be asked elsewhere."""
        if member.is_lost:
            self.places.look()
        return member.is_lost and not self._is_closed

    # Who is there.

    async def _follow(self) -> None:
        """Take up what is found, let go of what is lost."""
        while True:
            found = await self.places.next()
            for place, member in list(self._members.items()):
                if member.is_lost:
                    del self._members[place]
                    await member.close()
            await asyncio.gather(*(self._take_up(place) for place in found))

    async def _take_up(self, place: Place) -> None:
        for known, member in self._members.items():
            if known.same_engine(place):
                member.place = place  # which may be draining now
                return
        member = Member(place, self.settings)
        member.client.start()
        try:
            await member.client.greeted(GREETING_SECONDS)
        except BaseException as exc:
            await member.close()
            if isinstance(exc, GuardUnavailable):
                return  # found again at the next look, if it is there at all
            raise
        info = member.door.info
        if self._info is not None and info != self._info:
            await member.close()
            if place.name not in self._strangers:
                said = f"weir: engine {place.name} runs another guard than the rest of its fleet, and gets no streams"
                print(said, file=sys.stderr, flush=True)
            self._strangers.add(place.name)
            return
        self._info = info
        self._members[place] = member
        self._changed.set()
