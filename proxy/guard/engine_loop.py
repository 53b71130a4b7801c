"""What runs an engine, in a thread or in a process, does at each turn; and what a crash is to it."""

import time
from collections import deque

from proxy.guard.commands import Command, Outcome
from proxy.guard.engine import Engine
from proxy.guard.protocol import GuardUnavailable

# How long a blocked engine sleeps before it looks for room, or late opens, again.
BLOCKED_SECONDS = 0.01
# More crashes than this within a minute are not bad luck: this engine is done for.
CRASHES_A_MINUTE = 5


class EngineDead(Exception):
    """The engine keeps crashing. `reason` is for those who wait for it."""

    def __init__(self, reason: GuardUnavailable) -> None:
        super().__init__(str(reason))
        self.reason = reason


class EngineLoop:
    """Applies commands and steps. An exception costs the engine its memory, not its streams."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._crashes: deque[float] = deque(maxlen=CRASHES_A_MINUTE)

    def seconds_to_sleep(self, idle_seconds: float | None) -> float | None:
        """How long the next turn may wait for commands."""
        if not self.engine.has_work:
            return idle_seconds
        return BLOCKED_SECONDS if self.engine.is_blocked else 0.0

    def turn(self, commands: deque[Command]) -> list[Outcome]:
        """Take the commands, and step once if there is work. Raises EngineDead."""
        now = time.monotonic()
        outcomes: list[Outcome] = []
        try:
            while commands:
                if outcome := self.engine.apply(commands.popleft(), now):
                    outcomes.append(outcome)
            if self.engine.has_work:
                outcomes += self.engine.step(now)
        except Exception as exc:
            self._survive(GuardUnavailable(f"the guard engine crashed: {type(exc).__name__}: {exc}"))
        return outcomes

    def _survive(self, error: GuardUnavailable) -> None:
        now = time.monotonic()
        is_loop = len(self._crashes) == CRASHES_A_MINUTE and now - self._crashes[0] < 60
        self._crashes.append(now)
        if is_loop:
            raise EngineDead(error)
        self.engine.restart(error)
