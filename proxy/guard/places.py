"""Where the engines of a fleet are: as the settings say, or as a process tells it that asks a cluster.

The process is there so that nothing of what it needs is in ours.

    python -m proxy.guard.cluster < question

It writes a line whenever it has looked. Should it die it is started again; the engines that are known stay known.
"""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import Protocol

import msgspec

from proxy.guard.client import Address
from proxy.guard.process import end_child
from proxy.guard.protocol import GuardUnavailable

# Between the death of the process that looks and the next one.
RESTART_SECONDS = (0.5, 2.0, 10.0)
# Joining a cluster takes seconds, on a busy machine many.
START_SECONDS = 120.0
# Between two looks at engines that are written down.
LOOK_SECONDS = 2.0
# Of tens of thousands of engines.
MAX_LINE_BYTES = 8 << 20
DIED = 'the process that looks for engines died at once; what it needs comes with pip install "weir-proxy[ray]"'


class Place(msgspec.Struct, frozen=True):
    """One engine, by the name that it keeps when it is started again elsewhere."""

    name: str
    host: str
    port: int
    token: str
    is_draining: bool = False
    path: str = ""  # of a unix socket, instead of host and port

    @property
    def address(self) -> Address:
        return Address(self.path, self.host, self.port)

    def same_engine(self, other: "Place") -> bool:
        return (self.name, self.address, self.token) == (other.name, other.address, other.token)

    def __repr__(self) -> str:
        return f"Place({self.name!r}, {self.address})"  # the token is nobody's business


class Gone(str):
    """Why an engine is not there, and will not be."""

    __slots__ = ()


class Question(msgspec.Struct, frozen=True):
    """What the process is told on its standard input, as one line of JSON; each further line means: look now."""

    address: str
    fleet: str


class Seen(msgspec.Struct, frozen=True):
    """What it says: who is there, or why it cannot look."""

    places: list[Place] = []
    error: str = ""


class Places(Protocol):
    """Whoever knows the engines."""

    @property
    def detail(self) -> str:
        """How it stands with looking, for people."""

    async def start(self) -> None:
        """Raises GuardUnavailable where looking is hopeless."""

    async def next(self) -> list[Place]:
        """Who is there, when that has been looked at again."""

    def look(self) -> None:
        """Somebody is missing: look soon."""

    async def close(self) -> None: ...


class FixedPlaces:
    """`Places` that somebody has written down. Who is not there is tried again at each look."""

    def __init__(self, addresses: Sequence[Address], token: str) -> None:
        self._places = [Place(str(one), one.host, one.port, token, path=one.path) for one in addresses]
        self._look = asyncio.Event()
        self._look.set()
        self.detail = f"none answers at {', '.join(place.name for place in self._places)}"

    async def start(self) -> None:
        """See `Places`."""

    async def next(self) -> list[Place]:
        """See `Places`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._look.wait()
        self._look.clear()
        return self._places

    def look(self) -> None:
        """See `Places`."""
        self._look.set()

    async def close(self) -> None:
        """See `Places`."""


class PlacesProcess:
    """`Places` by a process that looks."""

    module = "proxy.guard.cluster"

    def __init__(self, question: Question) -> None:
        self._question = question
        self._process: asyncio.subprocess.Process | None = None
        self._first: Seen | None = None
        self._failures = 0
        self.detail = "nobody has looked yet"

    async def start(self) -> None:
        """See `Places`."""
        await self._spawn()
        try:
            async with asyncio.timeout(START_SECONDS):
                seen = await self._read()
        except TimeoutError as exc:
            raise GuardUnavailable(f"no answer from the cluster at {self._question.address}") from exc
        if seen is None or seen.error:
            raise GuardUnavailable(seen.error if seen else DIED)
        self._first = seen

    async def next(self) -> list[Place]:
        """See `Places`."""
        if self._first is not None:
            seen, self._first = self._first, None
            return self._heard(seen)
        while True:
            found = await self._read()
            if found is not None and not found.error:
                return self._heard(found)
            self.detail = "the cluster cannot be asked" + (f": {found.error}" if found else "")
            await self._stop()
            await asyncio.sleep(RESTART_SECONDS[min(self._failures, len(RESTART_SECONDS) - 1)])
            self._failures += 1
            with contextlib.suppress(OSError):  # a machine without room for a process may have some later
                await self._spawn()

    def look(self) -> None:
        """See `Places`."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):  # it is gone, and the next one looks at once
                self._process.stdin.write(b"\n")

    async def close(self) -> None:
        """See `Places`."""
        await self._stop()

    def _heard(self, seen: Seen) -> list[Place]:
        self._failures = 0
        self.detail = f"{len(seen.places)} engines of fleet {self._question.fleet} are known"
        return seen.places

    async def _spawn(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self.module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            start_new_session=True,  # a Ctrl-C at the terminal is ours to handle
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(self._question) + b"\n")

    async def _read(self) -> Seen | None:
        """None when the process is gone."""
        if self._process is None:
            return None
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
            return msgspec.json.decode(line, type=Seen) if line else None
        except (OSError, ValueError, msgspec.DecodeError):
            return None

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end_child(process)
