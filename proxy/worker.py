"""One of several processes that serve on one port. `crew` starts it, and speaks to it over its standard streams.

    python -m proxy.worker < settings

What comes in are pickles, from nobody but the parent: `Start`, later settings that may be adopted, `READY` once all
workers serve (whoever asks one speaks for none of the others), or a higher number, which asks for metrics. What goes
out are lines of JSON, `Said`: it listens, it serves, metrics. The guard is the parent's: a worker has none before the
settings name its address. It ends with its input: without its parent there is no guard.
"""

import asyncio
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

import msgspec
from aiohttp import web

from proxy.app import running
from proxy.current import Current
from proxy.guard.garbage import keep_what_is_loaded
from proxy.guard.protocol import Guard
from proxy.handlers import ADMISSION, CURRENT, metrics_of
from proxy.joint_metrics import Family, read_families
from proxy.loading import Loading, unless
from proxy.log import record_log
from proxy.serving import PROBLEMS, SWITCH_SECONDS, event_loop_factory, load, problem_of
from proxy.settings import Settings
from proxy.shared_usage import SharedUsages

# The numbers of the first two answers, which nobody has asked for. It listens, and it serves.
LISTENING, READY = 0, 1


@dataclass(frozen=True, slots=True)
class Start:
    """The first order. What keys use is counted in memory that is open at `fd`, for each worker in a row of its own."""

    settings: Settings
    is_late: bool  # it listens once it can serve: others do so meanwhile
    fd: int
    rows: int
    row: int


class Said(msgspec.Struct, frozen=True):
    """A worker's answer: how far it is, that it cannot start, or its metrics."""

    number: int = LISTENING
    error: str = ""
    status: int = 0
    families: list[Family] = []


class Link:
    """A worker's end of the pipes to its parent."""

    def __init__(self, orders: BinaryIO, answers: BinaryIO) -> None:
        self._orders, self._answers = orders, answers
        self._app: web.Application | None = None
        self.settings: asyncio.Queue[Settings] = asyncio.Queue()  # to be adopted
        self.is_alone = False

    def attach(self, app: web.Application) -> None:
        self._app = app

    def _join(self) -> None:
        if self._app is not None:
            self._app[ADMISSION].is_one_of_some = False

    def say(self, said: Said) -> None:
        with suppress(BrokenPipeError):  # of a parent that is gone the other pipe tells
            self._answers.write(msgspec.json.encode(said) + b"\n")
            self._answers.flush()

    def listen(self, stopped: asyncio.Event) -> None:
        """From now on, in a thread of its own: it also answers while the event loop is busy."""
        arguments = (asyncio.get_running_loop(), stopped)
        threading.Thread(target=self._listen, args=arguments, name="parent", daemon=True).start()

    def _listen(self, loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
        with suppress(RuntimeError):  # the loop has ended, and so will we
            while True:
                try:
                    order = pickle.load(self._orders)
                except (EOFError, OSError, pickle.UnpicklingError):
                    self.is_alone = True
                    loop.call_soon_threadsafe(stopped.set)
                    return
                if isinstance(order, Settings):
                    loop.call_soon_threadsafe(self.settings.put_nowait, order)
                elif order == READY:
                    loop.call_soon_threadsafe(self._join)
                else:
                    registry = None if self._app is None else metrics_of(self._app).registry
                    self.say(Said(order, families=[] if registry is None else read_families(registry)))


async def serve_for(link: Link, start: Start) -> None:
    """Until SIGTERM, or the end of the parent. Raises what `serving.problem_of` knows."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    for number in (signal.SIGINT, signal.SIGHUP):  # are the parent's
        loop.add_signal_handler(number, lambda: None)
    link.listen(stopped)
    usages = SharedUsages(start.fd, start.rows, start.row)
    current: list[Current] = []

    def built(app: web.Application) -> None:
        link.attach(app)
        app[ADMISSION].is_one_of_some = not start.is_late
        current.append(app[CURRENT])

    guard: Guard | None = await unless(stopped, load(start.settings)) if start.is_late else Loading()
    try:
        if guard is None:
            return
        async with running(start.settings, guard, built, lambda: link.is_alone, usage_of=usages.of):
            link.say(Said(LISTENING))
            if not start.is_late:
                guard = await unless(stopped, _load(link, start.settings, current[0]))
                if guard is None:
                    return
                current[0].arrive(guard)
            keep_what_is_loaded()
            link.say(Said(READY))
            await unless(stopped, _follow(link, current[0]))
    finally:
        if guard is not None:
            await guard.close()


async def _load(link: Link, settings: Settings, current: Current) -> Guard:
    """As soon as there is one to attach to: one that the parent runs has no address before. Raises GuardError."""
    while not settings.guard.is_elsewhere:
        settings = await link.settings.get()
        current.adopt(settings)
    return await load(settings)


async def _follow(link: Link, current: Current) -> None:
    while True:
        current.adopt(await link.settings.get())


def main() -> int:
    """Returns the exit status."""
    # What a library prints is no answer, and what it reads no order.
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        start: Start = pickle.load(orders)
    except EOFError:
        return 1
    link = Link(orders, answers)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with record_log(start.settings.log), asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            runner.run(serve_for(link, start))
    except PROBLEMS as exc:
        problem = problem_of(start.settings, exc)
        link.say(Said(error=str(problem), status=problem.status))
        return problem.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
