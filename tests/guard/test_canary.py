"""Whether a guard judges: by its canaries, in time, or not."""

import asyncio
from typing import Any

import pytest

from proxy.guard.canary import check_guard, examine
from proxy.guard.protocol import GuardError, GuardFault, GuardOverloaded, GuardUnavailable, Health
from proxy.guard.settings import GREETING, Canary, GuardSettings
from proxy.risk import RiskLevel
from tests.fakes import ScriptedGuard

VOCABULARY = 200_000


async def health_of(guard: ScriptedGuard, **settings: Any) -> Health:
    health = await examine(guard, GuardSettings(**settings), VOCABULARY)
    assert guard.slots == 0, "whatever came of it, nothing is left open"
    return health


async def test_a_guard_that_judges_is_ready_and_says_how_long_it_took() -> None:
    health = await health_of(ScriptedGuard())
    assert health.is_ready
    assert "judged its canary in" in health.detail
    assert 0.0 < health.seconds < 5.0


async def test_a_wrong_level_is_named() -> None:
    health = await health_of(ScriptedGuard(), canaries=(Canary(GREETING, 4, RiskLevel.UNSAFE),))
    assert not health.is_ready
    assert health.detail == "the canary text was judged Safe, not Unsafe"


async def test_one_that_hangs_is_not_ready_in_time() -> None:
    async with asyncio.timeout(20):
        health = await health_of(ScriptedGuard(delay=3600), health_seconds=0.05)
    assert health.detail == "no verdict on the canary text within 0.05 s"


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (GuardOverloaded("full"), "no room for the canary text: the key-value cache is full"),
        (GuardFault("not finite"), "not finite"),
    ],
)
async def test_a_failure_is_told(error: GuardError, detail: str) -> None:
    health = await health_of(ScriptedGuard(fails_after=0, error=error))
    assert (health.is_ready, health.detail) == (False, detail)


async def test_a_small_vocabulary_has_other_ids() -> None:
    guard = ScriptedGuard()
    assert (await examine(guard, GuardSettings(), 50)).is_ready
    assert max(max(ids) for ids in guard.fed) < 50


class Sick(ScriptedGuard):
    is_closed = False

    async def health(self) -> Health:
        return Health(False, "it says nothing", 0.0)

    async def close(self) -> None:
        self.is_closed = True


async def test_one_that_fails_its_first_check_is_closed() -> None:
    guard = Sick()
    with pytest.raises(GuardUnavailable, match="did not pass its first check: it says nothing"):
        await check_guard(guard)
    assert guard.is_closed
    await check_guard(ScriptedGuard())
