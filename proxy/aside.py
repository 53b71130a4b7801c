"""Work that would hold the event loop up, in threads of its own: JSON of megabytes, tokens of long prompts.

Few threads: they share the interpreter's lock with the loop, so more of them would do no more, and hold it up longer.
Names are looked up in other threads, the loop's own, which long work here must not keep from it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from proxy.errors import BUSY, Fault

# One large request does not wait for another.
THREADS = 2
# For a thread to become free. What takes seconds is refused or done long before.
ASIDE_SECONDS = 10.0

T = TypeVar("T")


class Run(Protocol):
    """Does work elsewhere, so that the event loop goes on meanwhile; where it is given none, at once."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


async def at_once(work: Callable[[], T]) -> T:
    return work()


class Aside:
    """The threads of one process, made as they are needed."""

    def __init__(self, threads: int = THREADS, seconds: float = ASIDE_SECONDS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="weir-aside")
        self._room = asyncio.Semaphore(threads)
        self._seconds = seconds

    async def run(self, work: Callable[[], T]) -> T:
        """Raises Fault where no thread becomes free, and whatever `work` raises.

        Who is cancelled while it runs leaves only when it has ended: what it works on is whole again then.
        """
        try:
            async with asyncio.timeout(self._seconds):
                await self._room.acquire()
        except TimeoutError as exc:
            raise Fault(BUSY, 503) from exc
        try:
            future = asyncio.wrap_future(self._pool.submit(work))
            await _ended(future)
        finally:
            self._room.release()
        return future.result()

    def close(self) -> None:
        self._pool.shutdown(wait=False)


async def _ended(future: asyncio.Future[T]) -> None:
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
