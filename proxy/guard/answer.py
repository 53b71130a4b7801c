"""A future of what a stream is asked."""

import asyncio
from collections.abc import Callable
from typing import Any

from proxy.risk import Risk


class Answer(asyncio.Future[list[Risk]]):
    """The risks of some tokens. Who cancels it takes the question back. A future, and no task."""

    def __init__(self, give_up: Callable[[], None]) -> None:
        super().__init__()
        self._give_up = give_up

    def hear(self, found: list[Risk] | Exception) -> None:
        if isinstance(found, Exception):
            self.set_exception(found)
        else:
            self.set_result(found)

    def cancel(self, msg: Any = None) -> bool:
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self._give_up()
        return is_cancelled
