"""What stands in a guard's place while it loads: nothing is judged then, and so nothing is served."""

import asyncio
import codecs
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn, TypeVar

from proxy.errors import ApiError
from proxy.guard.protocol import Guard, GuardInfo, GuardStream, Health
from proxy.retokenizer import Retokenizer
from proxy.risk import Risk, Role

# Loading takes seconds to minutes: a client that waits so long asks a few times, not a hundred.
RETRY_SECONDS = 3
# Of halved characters, and of host names.
CODECS = ("utf-16", "utf-16-le", "idna")

T = TypeVar("T")


class Loading:
    """A `Guard` of which nothing can be asked yet. No request comes so far; if one did, it would be a mistake of ours.

    Never a GuardError: `guard.on_failure = "open"` forgives those.
    """

    @property
    def info(self) -> GuardInfo:
        return GuardInfo("loading", "", 0)

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple[GuardStream, list[Risk]]:
        _ask_nothing()

    async def health(self) -> Health:
        return Health(False, "it is being loaded", 0.0)

    async def close(self) -> None: ...


def _ask_nothing() -> NoReturn:
    raise RuntimeError("the guard is asked before it is there")


def refuse_while_loading(guard: Guard) -> None:
    """Raises ApiError."""
    if isinstance(guard, Loading):
        retry = {"retry-after": str(RETRY_SECONDS)}
        raise ApiError(503, "The guard is still being loaded.", "api_error", code="starting", headers=retry)


def warm() -> None:
    """Build the retokenizer's tables: a second or so, for which the first request would hold everyone up.

    And load what else is loaded at its first use: then there may be no file descriptor left to read it with.
    """
    Retokenizer().feed("warm up")
    for name in CODECS:
        codecs.lookup(name)


async def unless(stopped: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What comes of the work, and its exceptions; None where the event comes first, which cancels it."""
    loop = asyncio.get_running_loop()
    working, waiting = loop.create_task(work), loop.create_task(stopped.wait())
    done: set[asyncio.Task[Any]] = set()
    try:
        done, _ = await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        working.cancel()
        await asyncio.wait({working, waiting})
    if working.cancelled() or (working not in done and working.exception() is not None):
        return None
    return working.result()
