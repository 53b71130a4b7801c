"""Tasks that fail together, as one exception that nothing else hangs on."""

import asyncio
import gc
from collections.abc import Sequence

import pytest

from proxy.together import together


class Wanted(Exception):
    pass


async def fail(error: Exception) -> None:
    raise error


async def hang(ended: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append("hang")


async def test_all_are_awaited() -> None:
    ended = []

    async def work(name: str) -> None:
        await asyncio.sleep(0)
        ended.append(name)

    async with together() as group:
        group.create_task(work("one"))
        await work("two")
    assert sorted(ended) == ["one", "two"]


async def fail_together(tasks: Sequence[Exception], block: Exception | None, ended: list[str]) -> None:
    async with together(Wanted) as group:
        group.create_task(hang(ended))
        for error in tasks:
            group.create_task(fail(error))
        await asyncio.sleep(0)
        if block is not None:
            raise block
        await asyncio.sleep(3600)


@pytest.mark.parametrize("is_task", [True, False], ids=["of a task", "of the block"])
async def test_a_failure_comes_out_alone_and_ends_the_others(is_task: bool) -> None:
    ended: list[str] = []
    error = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        await fail_together([error] * is_task, None if is_task else error, ended)
    assert ended == ["hang"]


async def test_of_two_failures_the_wanted_kind_comes_out() -> None:
    with pytest.raises(Wanted):
        await fail_together([ValueError("no"), Wanted()], None, [])


async def test_a_cancellation_is_passed_on() -> None:
    ended: list[str] = []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(fail_together([], None, ended), 0.01)
    assert ended == ["hang"]


class Held:
    """What a task has in its hands when it fails."""


async def test_nothing_of_a_failure_is_left() -> None:
    async def work() -> None:
        held = Held()
        raise Wanted(held)

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            try:
                async with together() as group:
                    group.create_task(work())
                    await asyncio.sleep(3600)
            except Wanted:
                pass
        await asyncio.sleep(0)
        assert not [one for one in gc.get_objects() if isinstance(one, Held)]
    finally:
        gc.enable()
