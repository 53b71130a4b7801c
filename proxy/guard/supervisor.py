"""The guard's own process: loads the model once, runs the engine in a child, and replaces one that died or hangs.

    python -m proxy.guard.supervisor < config      # what `process.ProcessGuard` starts

`weir guard serve` runs the same in the foreground. It holds the listening sockets, so that doors which
connect while an engine is replaced only wait. On a CPU the child is forked with the weights in place: a new
engine takes milliseconds. On a GPU each child loads for itself, since a process that has touched a GPU cannot
be forked. Ends when its standard input does, or on SIGTERM.
"""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from proxy.guard.black_box import BlackBox
from proxy.guard.engine_loop import EngineDead, EngineLoop
from proxy.guard.garbage import keep_what_is_loaded
from proxy.guard.listeners import listen, port_of, remove
from proxy.guard.loader import LoadedGuard, load_guard
from proxy.guard.process import Config, Report
from proxy.guard.protocol import GuardUnavailable
from proxy.guard.runner import Runner
from proxy.guard.server import EngineServer
from proxy.guard.service import build_engine

# How often the engine's beat is looked at.
WATCH_SECONDS = 0.1
# An engine on a GPU loads the model itself, perhaps from the hub, compiles kernels and captures graphs.
START_SECONDS = 1800.0
# Between the death of an engine that has done no step and the next one: it would only die again at once.
BACKOFF_SECONDS = (0.0, 0.1, 0.5, 2.0, 5.0)
ENGINE_DEAD = 3  # exit status of a child whose engine kept crashing


class Supervisor:
    def __init__(self, config: Config, report: Callable[[Report], None], lifeline: int | None) -> None:
        """`lifeline` is a descriptor whose end is ours too."""
        self._config, self._report, self._lifeline = config, report, lifeline
        self._box = BlackBox()
        self._listeners: dict[socket.socket, str] = {}
        self._loaded: LoadedGuard | None = None
        self._suspects: dict[int, list[int]] = {}
        self._child = 0
        self._forks = 0
        self._child_ends: list[int] = []
        self._failures = 0

    def run(self) -> int:
        """Returns the exit status."""
        try:
            return self._run()
        finally:
            for listener in self._listeners:
                listener.close()

    def _run(self) -> int:
        config = self._config
        try:
            self._listeners = listen(config)
            if not is_on_gpu(config.device):
                self._loaded = self.load()
                keep_what_is_loaded()  # here, so that an engine that takes over need not do it first
        except (GuardUnavailable, OSError, ValueError) as exc:
            self._report(Report(error=str(exc)))
            return 1
        if self._loaded is not None:
            self._say_ready()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
        try:
            self._watch()
        except (SystemExit, KeyboardInterrupt):
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # asked twice, it still ends only once
        finally:
            self._kill()
            remove(config)
        return 0

    def load(self) -> LoadedGuard:
        """Raises CheckpointError."""
        config = self._config
        Runner.use_one_thread()  # a pool of threads would not survive the fork
        return load_guard(
            config.model, revision=config.revision, dtype=config.dtype, device=config.device, sha256=config.sha256
        )

    def _say_ready(self) -> None:
        self._report(Report(port=port_of(self._listeners)))

    def _watch(self) -> None:
        """Keep one engine running until nobody wants it any more."""
        while True:
            if not self._child:
                time.sleep(BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)])
                self._fork()
            awake = [*self._child_ends, *([] if self._lifeline is None else [self._lifeline])]
            if self._lifeline in select.select(awake, [], [], WATCH_SECONDS)[0] and not os.read(self._lifeline, 4096):
                return
            self._look()

    def _look(self) -> None:
        if self._box.silent_seconds > self._config.settings.hang_seconds:
            print("weir: the guard's engine hangs and is replaced", file=sys.stderr, flush=True)
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        else:
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if not pid:
                return
            print(f"weir: the guard's engine died ({_cause(status)}) and is replaced", file=sys.stderr, flush=True)
        self._child = 0
        while self._child_ends:
            os.close(self._child_ends.pop())
        self._suspects = self._box.suspects()
        self._failures = 0 if self._box.steps else self._failures + 1

    def _fork(self) -> None:
        self._box.clear(0.0 if self._loaded is not None else START_SECONDS)
        parent = os.getpid()
        self._forks += 1
        self._child = os.fork()
        if self._child:
            if hasattr(os, "pidfd_open"):  # Linux: readable as soon as the child is dead
                self._child_ends = [os.pidfd_open(self._child)]
            return
        status = 1
        try:
            status = self._serve(parent)
        except KeyboardInterrupt:
            status = 0
        except BaseException as exc:
            # The child must never go on in the parent's code, whatever happened.
            print(f"weir: the guard's engine: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)

    def _serve(self, parent: int) -> int:
        """The child: an engine behind the sockets. Returns its exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        # Nobody reads a second report, and a pipe that is full would stop the engine.
        is_reporting = self._loaded is None and self._forks == 1
        try:
            loaded = self._loaded or self.load()
            engine, info, setup = build_engine(loaded, self._config.settings)
        except (GuardUnavailable, ValueError) as exc:
            if self._forks == 1:
                self._report(Report(error=str(exc)))
            raise
        setup()
        if self._loaded is None:
            keep_what_is_loaded()
        vocabulary = loaded.model.architecture.vocabulary
        server = EngineServer(EngineLoop(engine), info, vocabulary, self._listeners, self._box, self._suspects)
        if is_reporting:
            self._say_ready()
        try:
            server.serve(lambda: os.getppid() == parent)
        except EngineDead as dead:
            print(f"weir: {dead.reason}", file=sys.stderr, flush=True)
            return ENGINE_DEAD
        return 0

    def _kill(self) -> None:
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._child, 0)
            self._child = 0


def is_on_gpu(device: str) -> bool:
    """Whether the model must be loaded by the child, and never here."""
    return device != "cpu" and (device != "auto" or Runner.has_gpu())


def _end(*_: object) -> None:
    raise SystemExit


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"status {os.waitstatus_to_exitcode(status)}"


def run(kind: type[Supervisor] = Supervisor) -> int:
    """A supervisor for the parent that wrote its config to standard input, and lives as long as that stays open."""
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=Config)
    out = sys.stdout.buffer

    def report(what: Report) -> None:
        out.write(msgspec.json.encode(what) + b"\n")
        out.flush()

    return kind(config, report, sys.stdin.fileno()).run()


if __name__ == "__main__":
    sys.exit(run())
