"""A guard whose engine runs in a process of its own, started here or by someone else."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from proxy.guard.canary import check_guard
from proxy.guard.client import Address, EngineClient
from proxy.guard.door import GuardDoor
from proxy.guard.protocol import GuardUnavailable
from proxy.guard.settings import GuardSettings

# Loading may mean a download of gigabytes, which has deadlines of its own; connecting means milliseconds.
CONNECT_SECONDS = 10.0
STOP_SECONDS = 5.0
# Between the death of a guard's process and the start of the next one.
RESTART_SECONDS = (0.0, 1.0, 5.0, 15.0)


class Config(msgspec.Struct, frozen=True):
    """What the process is told on its standard input, as one line of JSON."""

    model: str
    settings: GuardSettings
    revision: str | None = None
    dtype: str = "auto"
    device: str = "cpu"
    path: str = ""  # of a unix socket
    host: str = ""  # or a TCP address, and the token that its peers must know
    port: int = 0
    token: str = ""
    sha256: Mapping[str, str] = {}  # of the model's files, by name
    vllm: Mapping[str, bool | int | float | str] = {}  # engine arguments, where vLLM runs the model


class Report(msgspec.Struct, frozen=True):
    """What the process says on its standard output, once: its guard is loaded, or why it is not."""

    error: str = ""
    port: int = 0


class RemoteGuard(GuardDoor):
    """A guard behind a socket that someone else serves (`weir guard serve`)."""

    def __init__(self, address: Address, token: str, settings: GuardSettings) -> None:
        super().__init__(settings)
        self._client = EngineClient(self, address, token)

    async def connect(self, seconds: float = CONNECT_SECONDS) -> None:
        """Raises GuardUnavailable, with the guard closed."""
        self._client.start()
        try:
            await self._client.greeted(seconds)
        except BaseException:
            await self.close()
            raise
        await check_guard(self)

    async def close(self) -> None:
        """See `protocol.Guard`."""
        await super().close()
        await self._client.close()


class Child:
    """A guard's process, which is started again should it die, and lives as long as its owner."""

    def __init__(self, module: str, config: Config, *, has_group: bool = False) -> None:
        """`has_group`: it starts processes that may outlive it, which have to be gone before the next one starts."""
        self._module, self._config, self._has_group = module, config, has_group
        self._process: asyncio.subprocess.Process | None = None
        self._is_loaded = False
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the process; the engine is its child."""
        assert self._process is not None  # started
        return self._process.pid

    async def start(self) -> Report:
        """Back when it is loaded. Raises GuardUnavailable; it has to be closed then, too."""
        report = await self._spawn()
        # This task lives as long as the process is wanted: `close` ends it.
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="guard-process")
        return report

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self._process is not None:
            if not self._is_loaded:  # it hears nothing, and has nobody to say farewell to
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            await end_child(self._process)
            self._end_group()

    async def _spawn(self) -> Report:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C at the terminal is ours to handle: streams end first
        )
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(self._config) + b"\n")
        line = await process.stdout.readline()
        report = msgspec.json.decode(line, type=Report) if line else Report(error="its process died at once")
        if report.error:
            raise GuardUnavailable(report.error)
        self._is_loaded = True
        return report

    async def _watch(self) -> None:
        """Start the process again when it is gone. Its engine it replaces itself."""
        failures = 0
        while self._process is not None:
            await self._process.wait()
            self._end_group()
            print("weir: the guard's process died and is started again", file=sys.stderr, flush=True)
            await asyncio.sleep(RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)])
            try:
                await self._spawn()
                failures = 0
            except (GuardUnavailable, OSError, msgspec.DecodeError) as exc:
                failures += 1
                print(f"weir: the guard cannot be started: {exc}", file=sys.stderr, flush=True)

    def _end_group(self) -> None:
        if self._has_group and self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # there was nobody left
                os.killpg(self._process.pid, signal.SIGKILL)


class ProcessGuard(RemoteGuard):
    """A guard with a process of its own, which lives exactly as long as it does."""

    module = "proxy.guard.supervisor"
    has_group = False

    def __init__(self, config: Config) -> None:
        # Only this user can reach the folder, whatever the permissions of what lies in it.
        self._folder = Path(tempfile.mkdtemp(prefix="weir-"))
        config = msgspec.structs.replace(config, path=str(self._folder / "guard.sock"))
        super().__init__(Address(path=config.path), "", config.settings)
        self._child = Child(self.module, config, has_group=self.has_group)

    @property
    def pid(self) -> int:
        """Of the process; the engine is its child."""
        return self._child.pid

    @property
    def path(self) -> Path:
        """Of the socket."""
        return self._folder / "guard.sock"

    async def start(self) -> None:
        """Raises GuardUnavailable, with everything closed."""
        try:
            await self._child.start()
            await self.connect()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `protocol.Guard`."""
        await super().close()
        await self._child.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class VllmGuard(ProcessGuard):
    """A guard whose process has vLLM run the model."""

    module = "proxy.guard.vllm_worker"
    has_group = True


async def start_process_guard(config: Config, kind: type[ProcessGuard] = ProcessGuard) -> ProcessGuard:
    """Load a guard in a process of its own and let it judge its canaries once. The caller closes it.

    Raises GuardUnavailable with the reason.
    """
    guard = kind(config)
    await guard.start()
    return guard


async def serve_child(child: Child, report: Callable[[Report], None]) -> int:
    """Keep a guard's process until a signal comes, and tell once how its start went. Returns the exit status."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    starting, stopping = loop.create_task(child.start()), loop.create_task(stopped.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            report(starting.result())
            await stopping
        return 0
    except GuardUnavailable as exc:
        report(Report(error=str(exc)))
        return 1
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await child.close()


async def attach_guard(
    address: Address, token: str, settings: GuardSettings, seconds: float = CONNECT_SECONDS
) -> RemoteGuard:
    """Connect to a guard that is served elsewhere. The caller closes it. Raises GuardUnavailable."""
    guard = RemoteGuard(address, token, settings)
    await guard.connect(seconds)
    return guard


async def end_child(process: asyncio.subprocess.Process) -> None:
    """One that ends when its standard input does; killed where it has not within `STOP_SECONDS`."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _environment() -> dict[str, str]:
    # A pool of threads that a library starts on import would not survive the fork.
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
