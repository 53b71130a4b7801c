"""The thread that runs an engine."""

import queue
import threading
from collections import deque
from collections.abc import Callable

from proxy.guard.commands import Command, Outcome
from proxy.guard.engine import Engine
from proxy.guard.engine_loop import EngineDead, EngineLoop
from proxy.guard.metrics import Metrics
from proxy.guard.protocol import GuardUnavailable

STOP_SECONDS = 10.0


class EngineThread:
    """Runs an engine: sleeps without work, restarts it after a crash, gives up when it keeps crashing."""

    def __init__(self, engine: Engine, setup: Callable[[], None], deliver: Callable[[list[Outcome]], None]) -> None:
        """`setup` runs first in the thread; `deliver` is called in it with what each step answered."""
        self._loop = EngineLoop(engine)
        self._setup, self._deliver = setup, deliver
        self._inbox: queue.SimpleQueue[list[Command] | None] = queue.SimpleQueue()
        self._on_death: Callable[[GuardUnavailable], None] | None = None
        # A daemon: an operation that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="guard-engine", daemon=True)

    def start(self, on_death: Callable[[GuardUnavailable], None]) -> None:
        self._on_death = on_death
        self._thread.start()

    def submit(self, commands: list[Command]) -> None:
        self._inbox.put(commands)

    def metrics(self) -> Metrics:
        return self._loop.engine.metrics()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Blocks until the thread has ended, or for `seconds`."""
        self._inbox.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        self._setup()
        commands: deque[Command] = deque()
        while self._receive(commands):
            try:
                outcomes = self._loop.turn(commands)
            except EngineDead as dead:
                if self._on_death is not None:
                    self._on_death(dead.reason)
                break
            if outcomes:
                self._deliver(outcomes)

    def _receive(self, commands: deque[Command]) -> bool:
        """Move what has come in to `commands`; wait for something when there is nothing else to do."""
        try:
            batch = self._inbox.get(timeout=0.0 if commands else self._loop.seconds_to_sleep(None))
            while batch is not None:
                commands.extend(batch)
                batch = self._inbox.get_nowait()
        except queue.Empty:
            return True
        return False
