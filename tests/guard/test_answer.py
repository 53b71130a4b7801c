"""A future that tells what was heard, and takes the question back when cancelled; a coroutine that is heard of."""

import asyncio

import pytest

from proxy.guard.answer import Answer, Later
from proxy.guard.protocol import GuardFault, GuardUnavailable


async def test_it_tells_what_was_heard() -> None:
    answer = Answer[int](_never)
    answer.hear(1)
    assert await answer == 1
    broken = Answer[int](_never)
    broken.hear(GuardFault("no"))
    with pytest.raises(GuardFault):
        await broken
    assert not answer.cancel()  # too late to take anything back


async def test_who_cancels_it_takes_the_question_back_once() -> None:
    calls: list[int] = []
    answer = Answer[int](lambda: calls.append(1))
    assert answer.cancel()
    assert not answer.cancel()
    assert calls == [1]
    answer.hear(1)  # it had been under way
    with pytest.raises(asyncio.CancelledError):
        await answer


def _never() -> None:
    raise AssertionError("nobody gave up")


Heard = asyncio.Queue[int | Exception]


async def work(found: int | Exception) -> int:
    if isinstance(found, Exception):
        raise found
    return found


@pytest.mark.parametrize("found", [1, GuardFault("no")])
async def test_what_comes_of_a_coroutine_is_heard_once(found: int | Exception) -> None:
    heard = Heard()
    asking = Later(work(found), heard.put_nowait)
    assert heard.empty()
    assert await heard.get() is found
    asking.give_up()  # too late
    await asyncio.sleep(0)
    assert heard.empty()


@pytest.mark.parametrize("ticks", range(4))
async def test_of_what_is_given_up_nothing_is_heard(ticks: int) -> None:
    heard = Heard()
    asking = Later(asyncio.sleep(0, 1), heard.put_nowait)
    for _ in range(ticks):
        await asyncio.sleep(0)
    is_late = not heard.empty()
    asking.give_up()
    asking.give_up()
    await asyncio.sleep(0.001)
    assert heard.empty() is not is_late
    assert is_late is (ticks == 3)


async def test_a_coroutine_that_others_cancel_is_no_answer() -> None:
    heard = Heard()
    Later(asyncio.sleep(60, 1), heard.put_nowait)
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    task.cancel()
    assert isinstance(await heard.get(), GuardUnavailable)
