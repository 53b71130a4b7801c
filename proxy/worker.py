"""One of several processes that serve on one port. `crew` starts it, and speaks to it over its standard streams.

    python -m proxy.worker < settings

What comes in are pickles, from nobody but the parent: the settings, later others that may be adopted, or a number,
which asks for metrics. What goes out are lines of JSON, `Said`. It ends with its input: without its parent there is
no guard.
"""

import asyncio
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from typing import BinaryIO

import msgspec
from aiohttp import web

from proxy.app import PROBLEMS, event_loop_factory, keep_what_is_loaded, problem_of, running
from proxy.guards import open_guard
from proxy.handlers import SERVICE, metrics_of
from proxy.joint_metrics import Family, read_families
from proxy.log import record_log
from proxy.reload import Reloader
from proxy.settings import Settings

READY = 0  # the number of the first answer, which nobody has asked for


class Said(msgspec.Struct, frozen=True):
    """A worker's answer: it serves, it cannot start, or its metrics."""

    number: int = READY
    error: str = ""
    status: int = 0
    families: list[Family] = []


class Link:
    """A worker's end of the pipes to its parent."""

    def __init__(self, orders: BinaryIO, answers: BinaryIO, settings: Settings) -> None:
        self._orders, self._answers = orders, answers
        self._reloader = Reloader(lambda: settings, settings)
        self._app: web.Application | None = None
        self.is_alone = False

    def attach(self, app: web.Application) -> None:
        self._app = app
        self._reloader.attach(app[SERVICE])

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
                    loop.call_soon_threadsafe(self._reloader.take, order)
                else:
                    registry = None if self._app is None else metrics_of(self._app).registry
                    self.say(Said(order, families=[] if registry is None else read_families(registry)))


async def serve_for(link: Link, settings: Settings) -> None:
    """Until SIGTERM, or the end of the parent. Raises what `app.problem_of` knows."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    for number in (signal.SIGINT, signal.SIGHUP):  # are the parent's
        loop.add_signal_handler(number, lambda: None)
    link.listen(stopped)
    guard = await open_guard(settings)
    try:
        async with running(settings, guard, link.attach, lambda: link.is_alone):
            keep_what_is_loaded()
            link.say(Said())
            await stopped.wait()
    finally:
        await guard.close()


def main() -> int:
    """Returns the exit status."""
    # What a library prints is no answer, and what it reads no order.
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        settings = pickle.load(orders)
    except EOFError:
        return 1
    link = Link(orders, answers, settings)
    try:
        with record_log(settings.log), asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            runner.run(serve_for(link, settings))
    except PROBLEMS as exc:
        problem = problem_of(settings, exc)
        link.say(Said(error=str(problem), status=problem.status))
        return problem.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
