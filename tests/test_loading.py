"""What stands in for a guard that loads, and work that a stop cuts short."""

import asyncio

import pytest

from proxy.errors import ApiError
from proxy.guard.protocol import GuardError
from proxy.loading import Loading, refuse_while_loading, unless
from tests.fakes import ScriptedGuard


async def test_nothing_is_asked_of_a_guard_that_loads_and_no_failure_of_it_is_forgiven() -> None:
    guard = Loading()
    assert not (await guard.health()).is_ready
    with pytest.raises(RuntimeError) as caught:
        await guard.open([1])
    assert not isinstance(caught.value, GuardError)
    with pytest.raises(ApiError) as refused:
        refuse_while_loading(guard)
    assert (refused.value.status, refused.value.code) == (503, "starting")
    refuse_while_loading(ScriptedGuard())
    await guard.close()


async def test_work_ends_as_it_would_unless_the_stop_comes_first() -> None:
    async def work(seconds: float, error: Exception | None = None) -> str:
        try:
            await asyncio.sleep(seconds)
        finally:
            if error is not None:
                raise error
        return "done"

    stopped = asyncio.Event()
    assert await unless(stopped, work(0)) == "done"
    with pytest.raises(ValueError, match="broken"):
        await unless(stopped, work(0, ValueError("broken")))
    stopped.set()
    async with asyncio.timeout(10):
        assert await unless(stopped, work(3600)) is None
        assert await unless(stopped, work(3600, ValueError("broken by the stop"))) is None


async def test_whoever_waits_for_work_may_be_cancelled_and_ends_it() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    waiting = asyncio.get_running_loop().create_task(unless(asyncio.Event(), work()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
