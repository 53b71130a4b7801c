"""Ends what is late, as asyncio.timeout does, and nothing else."""

import asyncio
import math

import pytest

from proxy.deadline import Deadline
from tests.sockets import timed


async def test_what_is_late_is_cancelled_and_told() -> None:
    deadline = Deadline()
    late = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError), deadline.within(0.01):
        await late
    assert late.cancelled()
    await asyncio.sleep(0)  # the task itself was not cancelled
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_limit_that_moves_ahead_of_its_timer_is_never_met() -> None:
    deadline = Deadline()
    begin = asyncio.get_running_loop().time()
    for _ in range(12):
        with deadline.within(0.4):
            await asyncio.sleep(0.05)
    assert asyncio.get_running_loop().time() - begin > 0.5
    with pytest.raises(TimeoutError), deadline.within(0.05):
        await asyncio.sleep(3600)
    deadline.close()


async def test_a_shorter_limit_than_the_last_is_kept() -> None:
    deadline = Deadline()
    with deadline.within(3600):
        await asyncio.sleep(0)
    with timed(), pytest.raises(TimeoutError), deadline.within(0.02):
        await asyncio.sleep(3600)
    with deadline.until(math.inf):
        await asyncio.sleep(0.05)


async def test_between_two_blocks_nothing_is_cancelled() -> None:
    deadline = Deadline()
    with deadline.within(0.2):
        await asyncio.sleep(0)
    await asyncio.sleep(0.25)
    with pytest.raises(TimeoutError), deadline.within(0.01):
        await asyncio.sleep(3600)


async def test_a_limit_that_has_passed_cancels_the_first_await() -> None:
    deadline = Deadline()
    with pytest.raises(TimeoutError), deadline.within(-1):
        await asyncio.sleep(3600)


async def test_who_is_cancelled_by_others_stays_cancelled() -> None:
    deadline = Deadline()
    loop = asyncio.get_running_loop()

    async def wait(seconds: float) -> None:
        with deadline.within(seconds):
            await asyncio.sleep(3600)

    async with asyncio.TaskGroup() as group:
        early = group.create_task(wait(60))
        await asyncio.sleep(0)
        early.cancel()
    assert early.cancelled()
    async with asyncio.TaskGroup() as group:
        both = group.create_task(wait(0.02))
        await asyncio.sleep(0)
        loop.call_at(loop.time() + 0.02, both.cancel)
    assert both.cancelled() or isinstance(both.exception(), TimeoutError)


async def test_an_error_of_the_block_is_its_own_even_when_it_is_late() -> None:
    deadline = Deadline()

    async def fail_when_late() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise KeyError from None

    with pytest.raises(KeyError), deadline.within(0.01):
        await fail_when_late()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_closed_one_leaves_no_timer() -> None:
    deadline = Deadline()
    with deadline.within(0.2):
        await asyncio.sleep(0)
    deadline.close()
    await asyncio.sleep(0.25)
    with deadline.within(60):
        await asyncio.sleep(0)
    deadline.close()
    deadline.close()
