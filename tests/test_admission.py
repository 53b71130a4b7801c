"""Requests under way are counted, and ended when the server stops."""

import asyncio

import pytest

from proxy.admission import Admission
from proxy.errors import ApiError
from tests.sockets import PATIENCE_SECONDS


async def test_what_is_too_many_is_refused_at_once() -> None:
    admission = Admission(1)
    with admission.enter():
        assert admission.running == 1
        with pytest.raises(ApiError) as caught:
            await enter(admission)
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    assert admission.running == 0
    await enter(admission)


async def test_with_a_loop_that_is_late_for_long_no_more_are_let_in() -> None:
    admission = Admission(9, max_lag_seconds=0.05)
    admission.lag = lambda: 0.1
    with admission.enter():  # where nothing runs, nothing can be the matter with it
        with pytest.raises(ApiError) as caught:
            await enter(admission)
        assert (caught.value.status, caught.value.limit) == (503, "server.max_lag_seconds")
        admission.lag = lambda: 0.04
        await enter(admission)


async def enter(admission: Admission) -> None:
    with admission.enter():
        pass


async def test_draining_waits_for_what_ends_in_time_and_ends_the_rest() -> None:
    admission = Admission(9)
    ends: list[str] = []

    async def run(seconds: float) -> None:
        try:
            with admission.enter():
                await asyncio.sleep(seconds)
                ends.append("finished")
        except ApiError as exc:
            ends.append(str(exc.code))

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(run(0.05))
        group.create_task(run(3600))
        await asyncio.sleep(0)
        assert admission.running == 2
        await admission.drain(0.5)
        assert admission.is_draining
        assert admission.running == 0
    assert ends == ["finished", "shutting_down"]


async def test_draining_does_not_wait_for_nothing() -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await Admission(1).drain(3600)


async def test_an_error_within_comes_out_as_it_is() -> None:
    admission = Admission(1)

    async def fail(error: Exception) -> None:
        with admission.enter():
            raise error

    for error in (TimeoutError(), ValueError()):
        with pytest.raises(type(error)):
            await fail(error)
    assert admission.running == 0
