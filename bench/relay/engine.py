"""An engine that finds everything safe: what is left is what Weir's way to an engine costs.

`python -m bench.relay.engine PATH` listens at a unix socket, as `weir guard serve` does.
"""

import argparse
import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import uvloop

from proxy.guard.commands import Command, Feed, Open, Outcome
from proxy.guard.metrics import Metrics
from proxy.guard.protocol import GuardInfo
from proxy.guard.rows import CATEGORIES, write_rows
from proxy.guard.wire_server import WireServer

INFO = GuardInfo("stub", "0", 1 << 20)
VOCABULARY = 1 << 20
# About what a small guard takes for a step on a GPU. What comes meanwhile is answered by the next one.
STEP_SECONDS = 0.002
SAFE_ROWS = {
    role: write_rows([[0.998, 0.001, 0.001, *[1 / len(names)] * len(names)]], role)
    for role, names in CATEGORIES.items()
}


class SafeLink:
    """A `wire_server.OwnLink`."""

    def __init__(self, deliver: Callable[[list[Outcome]], None]) -> None:
        self._deliver = deliver
        self._asked: list[Open | Feed] = []
        self._step: asyncio.TimerHandle | None = None

    def submit(self, commands: list[Command]) -> None:
        self._asked += [command for command in commands if isinstance(command, Open | Feed)]
        if self._asked and self._step is None:
            self._step = asyncio.get_running_loop().call_later(STEP_SECONDS, self._answer)

    def metrics(self) -> Metrics:
        return Metrics()

    def close(self) -> None:
        if self._step is not None:
            self._step.cancel()

    def _answer(self) -> None:
        asked, self._asked, self._step = self._asked, [], None
        self._deliver([Outcome(one.ticket, SAFE_ROWS[one.role] * _tokens(one)) for one in asked])


def _tokens(command: Open | Feed) -> int:
    return len(command.reads if isinstance(command, Open) else command.ids)


async def serve(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = WireServer(INFO, VOCABULARY, SafeLink)
        await server.listen({listener: ""})
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    uvloop.run(serve(parser.parse_args().path))
