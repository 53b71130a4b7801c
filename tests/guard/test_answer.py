"""A future of risks: it tells what was heard, and who cancels it takes the question back."""

import asyncio

import pytest

from proxy.guard.answer import Answer
from proxy.guard.protocol import GuardFault
from proxy.risk import RiskLevel
from tests.fakes import risk


async def test_it_tells_what_was_heard() -> None:
    found = [risk(RiskLevel.SAFE)]
    answer = Answer(_never)
    answer.hear(found)
    assert await answer is found
    broken = Answer(_never)
    broken.hear(GuardFault("no"))
    with pytest.raises(GuardFault):
        await broken
    assert not answer.cancel()  # too late to take anything back


async def test_who_cancels_it_takes_the_question_back_once() -> None:
    calls: list[int] = []
    answer = Answer(lambda: calls.append(1))
    assert answer.cancel()
    assert not answer.cancel()
    assert calls == [1]
    with pytest.raises(asyncio.CancelledError):
        await answer


def _never() -> None:
    raise AssertionError("nobody gave up")
