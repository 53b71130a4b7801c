"""What the benchmark's servers have in common: they say their port on stdout and stop at SIGTERM."""

import asyncio
import signal


async def until_terminated(port: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print(port, flush=True)
    await stopped.wait()
