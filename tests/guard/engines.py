"""Engines behind real sockets, each in a thread: they die in their place, go for good, or fall silent, as one likes."""

import asyncio
import socket
import threading
from pathlib import Path

from proxy.guard.black_box import BlackBox
from proxy.guard.engine import Engine
from proxy.guard.engine_loop import EngineLoop
from proxy.guard.model import GuardModel
from proxy.guard.places import Place
from proxy.guard.protocol import GuardInfo
from proxy.guard.runner import Runner
from proxy.guard.server import EngineServer

TOKEN = "secret"


class LiveEngine:
    def __init__(self, model: GuardModel, folder: Path, name: str, info: GuardInfo) -> None:
        self.model, self.name, self.info = model, name, info
        self.path = str(folder / f"{name}.sock")
        self.is_draining = False
        self.listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._is_wanted = threading.Event()
        self._is_awake, self._is_parked = threading.Event(), threading.Event()
        self.engine: Engine | None = None

    @property
    def place(self) -> Place:
        return Place(self.name, "", 0, TOKEN, self.is_draining, self.path)

    def start(self) -> "LiveEngine":
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(128)
        self._begin()
        return self

    def die(self) -> None:
        """The engine dies and is replaced in its place; doors that connect meanwhile wait."""
        self._end()
        self._begin()

    def go(self) -> None:
        """The engine and all that would replace it."""
        if self.listener is None:
            return
        self._end()
        self.listener.close()
        self.listener = None
        Path(self.path).unlink()

    def fall_silent(self) -> None:
        """As a machine that has lost its power: nothing is closed, nothing is said. Blocks for a turn."""
        self._is_parked.clear()
        self._is_awake.clear()
        self._is_parked.wait()

    def wake(self) -> None:
        self._is_awake.set()

    def _begin(self) -> None:
        assert self.listener is not None
        self._is_wanted.set()
        self._is_awake.set()
        self.engine = Engine(Runner(self.model), window=self.info.window, budget_bytes=1 << 24)
        vocabulary = self.model.architecture.vocabulary
        server = EngineServer(EngineLoop(self.engine), self.info, vocabulary, {self.listener: TOKEN}, BlackBox())
        self._thread = threading.Thread(target=self._run, args=(server,), daemon=True)
        self._thread.start()

    def _end(self) -> None:
        self._is_wanted.clear()
        self.wake()
        assert self._thread is not None
        self._thread.join()

    def _run(self, server: EngineServer) -> None:
        while self._is_wanted.is_set():
            if self._is_awake.is_set():
                server.turn(0.02)
            else:
                self._is_parked.set()
                self._is_awake.wait()
        server.close()


class Listed:
    """`places.Places` out of a list that tests change."""

    def __init__(self, engines: list[LiveEngine]) -> None:
        self.engines = engines
        self.detail = "a list of tests"
        self.error: Exception | None = None
        self.looks = 0
        self._look = asyncio.Event()
        self._look.set()

    async def start(self) -> None:
        if self.error is not None:
            raise self.error

    async def next(self) -> list[Place]:
        await self._look.wait()
        self._look.clear()
        self.looks += 1
        return [engine.place for engine in self.engines if engine.listener is not None]

    def look(self) -> None:
        self._look.set()

    async def close(self) -> None: ...
