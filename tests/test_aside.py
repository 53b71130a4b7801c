"""Work in threads: what it returns and raises, that it has an end before its caller goes on, and how long it waits."""

import asyncio
import threading

import pytest

from proxy.aside import Aside
from proxy.errors import BUSY, Fault


async def test_work_is_done_in_another_thread_and_raises_what_it_raises() -> None:
    aside = Aside()
    assert await aside.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await aside.run(lambda: 1 // 0)
    aside.close()


async def test_who_is_cancelled_leaves_when_the_work_has_ended() -> None:
    aside, begun, may_end, ended = Aside(threads=1), threading.Event(), threading.Event(), False

    def work() -> None:
        nonlocal ended
        begun.set()
        may_end.wait(20)
        ended = True

    task = asyncio.get_running_loop().create_task(aside.run(work))
    await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended
    assert await aside.run(lambda: 5) == 5  # the thread is free again
    aside.close()


async def test_who_finds_no_thread_in_time_is_refused() -> None:
    aside, may_end = Aside(threads=1, seconds=0.01), threading.Event()
    task = asyncio.get_running_loop().create_task(aside.run(lambda: may_end.wait(20)))
    await asyncio.sleep(0)
    with pytest.raises(Fault) as found:
        await aside.run(lambda: None)
    assert (found.value.failure, found.value.status) == (BUSY, 503)
    may_end.set()
    assert await task
    aside.close()
