"""Tasks that live and fail together, where one exception says enough."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from traceback import clear_frames


@asynccontextmanager
async def together(first: type[Exception] | None = None) -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that raises one of its exceptions, the earliest, instead of a group: rather one of the kind `first`.

    Nothing of the group outlives it. Its frames hold it in circles, and through it all that its tasks held, which
    would stay in memory until garbage is looked for.
    """
    error: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        clear_frames(failed.__traceback__)
        wanted = [one for one in failed.exceptions if first is not None and isinstance(one, first)]
        error = (wanted or failed.exceptions)[0]
        del wanted
    if error is not None:
        try:
            raise error
        finally:
            del error  # whose traceback has this frame
