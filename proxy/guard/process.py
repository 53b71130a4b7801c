"""A guard whose engine runs in a process of its own, started here or by someone else."""

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from proxy.guard.client import Address, EngineClient
from proxy.guard.door import GuardDoor, check_guard
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


class ProcessGuard(RemoteGuard):
    """A guard with a process of its own, which lives exactly as long as it does."""

    module = "proxy.guard.supervisor"

    def __init__(self, config: Config) -> None:
        # Only this user can reach the folder, whatever the permissions of what lies in it.
        self._folder = Path(tempfile.mkdtemp(prefix="weir-"))
        self._config = msgspec.structs.replace(config, path=str(self._folder / "guard.sock"))
        super().__init__(Address(path=self._config.path), "", config.settings)
        self._process: asyncio.subprocess.Process | None = None
        self._is_loaded = False
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the process; the engine is its child."""
        assert self._process is not None  # started
        return self._process.pid

    @property
    def path(self) -> Path:
        """Of the socket."""
        return Path(self._config.path)

    async def start(self) -> None:
        """Raises GuardUnavailable, with everything closed."""
        try:
            await self._spawn()
            # This task lives as long as the guard: `close` ends it.
            self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="guard-process")
            await self.connect()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `protocol.Guard`."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        await super().close()
        if self._process is not None:
            if not self._is_loaded:  # it hears nothing, and has nobody to say farewell to
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            await end_child(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _spawn(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self.module),
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

    async def _watch(self) -> None:
        """Start the process again when it is gone. Its engine it replaces itself."""
        failures = 0
        while self._process is not None:
            await self._process.wait()
            print("weir: the guard's process died and is started again", file=sys.stderr, flush=True)
            await asyncio.sleep(RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)])
            try:
                await self._spawn()
                failures = 0
            except (GuardUnavailable, OSError, msgspec.DecodeError) as exc:
                failures += 1
                print(f"weir: the guard cannot be started: {exc}", file=sys.stderr, flush=True)


async def start_process_guard(config: Config) -> ProcessGuard:
    """Load a guard in a process of its own and let it judge its canaries once. The caller closes it.

    Raises GuardUnavailable with the reason.
    """
    guard = ProcessGuard(config)
    await guard.start()
    return guard


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
