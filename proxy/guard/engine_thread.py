"""The thread that runs an engine, and what it does when the engine crashes."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from proxy.guard.commands import Command, Outcome
from proxy.guard.engine import Engine
from proxy.guard.protocol import GuardUnavailable

# How long a blocked engine sleeps before it looks for room, or late opens, again.
BLOCKED_SECONDS = 0.01
# More crashes than this within a minute are not bad luck: the engine stays down and health says so.
CRASHES_A_MINUTE = 5


class EngineThread:
    """Runs an engine: sleeps without work, restarts it after a crash, gives up when it keeps crashing."""

    def __init__(self, engine: Engine, setup: Callable[[], None], deliver: Callable[[list[Outcome]], None]) -> None:
        """`setup` runs first in the thread; `deliver` is called in it with what each step answered."""
        self._engine, self._setup, self._deliver = engine, setup, deliver
        self._inbox: queue.SimpleQueue[list[Command] | None] = queue.SimpleQueue()
        self._crashes: deque[float] = deque(maxlen=CRASHES_A_MINUTE)
        self._on_death: Callable[[GuardUnavailable], None] | None = None
        # A daemon: an operation that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="guard-engine", daemon=True)

    def start(self, on_death: Callable[[GuardUnavailable], None]) -> None:
        self._on_death = on_death
        self._thread.start()

    def submit(self, commands: list[Command]) -> None:
        self._inbox.put(commands)

    def stop(self, seconds: float) -> None:
        """Blocks until the thread has ended, or for `seconds`."""
        self._inbox.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        self._setup()
        commands: deque[Command] = deque()
        while self._receive(commands):
            try:
                self._turn(commands)
            except Exception as exc:
                error = GuardUnavailable(f"the guard engine crashed: {type(exc).__name__}: {exc}")
                if not self._survive(error):
                    break

    def _receive(self, commands: deque[Command]) -> bool:
        """Move what has come in to `commands`; wait for something when there is nothing else to do."""
        is_idle = not commands and not self._engine.has_work
        timeout = BLOCKED_SECONDS if self._engine.is_blocked and not commands else 0.0
        try:
            batch = self._inbox.get(timeout=None if is_idle else timeout)
            while batch is not None:
                commands.extend(batch)
                batch = self._inbox.get_nowait()
        except queue.Empty:
            return True
        return False

    def _turn(self, commands: deque[Command]) -> None:
        now = time.monotonic()
        outcomes = []
        while commands:
            if outcome := self._engine.apply(commands.popleft(), now):
                outcomes.append(outcome)
        if self._engine.has_work:
            outcomes += self._engine.step(now)
        if outcomes:
            self._deliver(outcomes)

    def _survive(self, error: GuardUnavailable) -> bool:
        now = time.monotonic()
        is_loop = len(self._crashes) == CRASHES_A_MINUTE and now - self._crashes[0] < 60
        self._crashes.append(now)
        if not is_loop:
            self._engine.restart(error)
        elif self._on_death is not None:
            self._on_death(error)
        return not is_loop
