"""Drives a pump by what happens on the event loop: bytes come, verdicts come, the client has room, time passes.

One answer has one of these, one timer that is moved lazily, and no task: its handler awaits one future for all of it.
"""

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from proxy.aside import Run, at_once
from proxy.classifier import Classifier
from proxy.driver import Client, Driver, Source
from proxy.pump import Told
from proxy.settings import UpstreamSettings
from proxy.stream import ModeratedStream
from proxy.structs import Patience


class Drive:
    """`run` it once."""

    def __init__(
        self,
        stream: ModeratedStream,
        source: Source,
        classifier: Classifier | None,
        client: Client,
        limits: UpstreamSettings,
        beat_seconds: float,
        *,
        fails_open: bool,
        aside: Run = at_once,
    ) -> None:
        """`classifier`: None where the stream's gate is open. `beat_seconds`: how long the client gets nothing while
        the upstream is waited for, until it gets a sign of life. `aside`: for steps of large answers.
        """
        verdict_seconds = math.inf if classifier is None else classifier.verdict_seconds
        patience = Patience(verdict_seconds, limits.idle_seconds, limits.total_seconds, beat_seconds)
        inquiry = None if classifier is None else classifier.inquiry
        work_aside = partial(_work_aside, aside)
        self._driver = Driver(stream, source, inquiry, client, patience, work_aside, fails_open=fails_open)

    async def run(self) -> None:
        """To the stream's end."""
        driver = self._driver
        try:
            driver.begin()
            await driver.done
        except asyncio.CancelledError:
            if driver.refused is not None:  # a client that is hung up on is gone before we are told why
                raise driver.refused from None
            raise
        finally:
            driver.end()
            working = driver.working
            if working is not None and not working.done():
                working.cancel()
                await asyncio.wait([working])  # until then the stream is not whole
            driver.close()


async def _work_aside(run: Run, work: Callable[[], Any], told: Told) -> None:
    try:
        found = await run(work)
    except Exception as exc:
        found = exc
    told(found)
