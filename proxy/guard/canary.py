"""Does a guard judge? Asked with canary texts, whose verdicts are known."""

import asyncio
import time

from proxy.guard.answer import classify
from proxy.guard.protocol import Guard, GuardError, GuardOverloaded, GuardUnavailable, Health
from proxy.guard.settings import Canary, GuardSettings


async def examine(guard: Guard, settings: GuardSettings, vocabulary: int) -> Health:
    """A real verdict on each canary, within `health_seconds`. `vocabulary`: how many ids the guard knows."""
    started = time.perf_counter()
    detail = ""
    try:
        async with asyncio.timeout(settings.health_seconds):
            for canary in settings.canaries:
                detail = detail or await _judge(guard, canary, vocabulary)
    except TimeoutError:
        detail = f"no verdict on the canary text within {settings.health_seconds} s"
    except GuardOverloaded:
        detail = "no room for the canary text: the key-value cache is full"
    except (GuardError, ValueError) as exc:
        detail = str(exc)
    seconds = time.perf_counter() - started
    return Health(not detail, detail or f"{guard.info.model} judged its canary in {seconds * 1e3:.1f} ms", seconds)


async def check_guard(guard: Guard) -> None:
    """Raises GuardUnavailable, with the guard closed, unless it judges its canaries."""
    health = await guard.health()
    if not health.is_ready:
        await guard.close()
        raise GuardUnavailable(f"guard {guard.info.model} did not pass its first check: {health.detail}")


async def _judge(guard: Guard, canary: Canary, vocabulary: int) -> str:
    """What is wrong with the verdict on a canary; empty when nothing is."""
    # A small vocabulary has other ids; the canary then only shows that the engine answers.
    ids = [token % vocabulary for token in canary.ids]
    stream, (risk,) = await guard.open(ids, read=[canary.read], owner="canary")
    try:
        await classify(stream, len(ids), ids[:1])
    finally:
        await stream.close()
    if canary.level not in (None, risk.level):
        return f"the canary text was judged {risk.level}, not {canary.level}"
    return ""
