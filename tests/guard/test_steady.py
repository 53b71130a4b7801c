"""Never slower with time, and nothing left behind. WEIR_LONG=1: 10,000 streams, a stream of 30,000 tokens."""

import asyncio
import gc
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from proxy.guard.answer import classify
from proxy.guard.commands import Outcome
from proxy.guard.limits import Limits
from proxy.guard.loader import LoadedGuard
from proxy.guard.protocol import GuardError, GuardFault, GuardOverloaded, GuardTimeout, GuardUnavailable
from proxy.guard.sequence import Job, Sequence
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GuardSettings
from proxy.guard.streams import KeptStream
from tests.guard.checkpoints import random_ids
from tests.guard.driver import Crashing, Held, Poisoned, Small, with_nan
from tests.guard.steady import Drift, alive, drift, resident_bytes
from tests.sockets import PATIENCE_SECONDS

IS_LONG = "WEIR_LONG" in os.environ
STREAMS = 10_000 if IS_LONG else 300
LONG_TOKENS = 30_000 if IS_LONG else 1_500
# A run of seconds on a shared machine shows only what is gross: one that takes twice as long in the end.
MOST_DRIFT = 0.02 if IS_LONG else 1.0
MOST_GROWTH = 4 << 20  # bytes
KINDS = (Sequence, Job, Outcome, KeptStream)
PROMPT = random_ids(40)


class Text(list[int]):
    """Ids that can be told from all others."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"), max_position_embeddings=32_768)


def door(small: Small, model: object = None, **settings: object) -> LocalGuard:
    loaded = LoadedGuard(model or small.loaded.model, small.loaded.info)  # type: ignore[arg-type]
    return LocalGuard(loaded, GuardSettings(threads=1, **settings))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _out_of_sight() -> None:
    """What tests before this one left alive, in their fixtures for instance, is none of `alive`'s."""
    gc.collect()
    gc.freeze()


async def settle(guard: LocalGuard) -> None:
    """Until the engine has taken the last close."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while guard.metrics().streams or guard.metrics().queue_depth:
        assert time.monotonic() < deadline, guard.metrics()
        await asyncio.sleep(0.001)


async def check_empty(guard: LocalGuard) -> None:
    await settle(guard)
    metrics = guard.metrics()
    assert (guard.streams, metrics.streams, metrics.queue_depth) == (0, 0, 0)
    assert metrics.kv_held_bytes == metrics.kept_tokens == 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := alive(*KINDS):  # until a sweep later, when the last future is gone too
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.02)


async def converse(guard: LocalGuard, number: int) -> None:
    """What a request does: a prompt, two channels, a few tokens of each."""
    stream, _ = await guard.open([*PROMPT, number % 400], read=[40], owner=f"key {number % 7}")
    forks = [stream.fork() for _ in range(2)]
    for fork in forks:
        await classify(fork, 41, [1, 2, 3])
        await classify(fork, 44, [number % 400])
    for closing in (*forks, stream):
        await closing.close()


def told(name: str, found: Drift) -> Drift:
    if IS_LONG:
        print(f"\n{name}: {found}")
    return found


async def test_the_last_of_many_streams_is_as_quick_as_the_first(small: Small) -> None:
    guard = door(small)
    try:
        cpu, wall, sizes = [], [], []
        for number in range(STREAMS + STREAMS // 10):
            times = time.process_time(), time.perf_counter()
            await converse(guard, number)
            if number >= STREAMS // 10:  # after the warm-up
                cpu.append(time.process_time() - times[0])
                wall.append(time.perf_counter() - times[1])
                sizes.append(float(resident_bytes()))
        await check_empty(guard)
        assert told(f"CPU seconds of {STREAMS} streams", drift(cpu)).low < MOST_DRIFT
        assert told(f"seconds of {STREAMS} streams", drift(wall)).low < MOST_DRIFT or not IS_LONG  # others work too
        told("resident bytes", drift(sizes))
        assert sizes[-1] - sizes[0] < MOST_GROWTH
    finally:
        await guard.close()


async def test_a_token_costs_the_same_the_thousandth_time(small: Small) -> None:
    """At one length; what a longer past costs is attention's own, and grows with it in a straight line."""
    guard = door(small)
    try:
        stream, _ = await guard.open(random_ids(1000))
        seconds = []
        for number in range(STREAMS):
            started = time.process_time()
            await classify(stream, 1000, [number % 400])
            seconds.append(time.process_time() - started)
        assert told(f"CPU seconds of a token, {STREAMS} times", drift(seconds[10:])).low < MOST_DRIFT
        await stream.close()
        del stream
        await check_empty(guard)
    finally:
        await guard.close()


async def test_a_long_stream_costs_what_its_past_costs_and_no_more(small: Small) -> None:
    """The cost of a token less that of a stream that was given the same past at once: nothing comes on top."""
    guard = door(small, open_seconds=600.0)
    try:
        stream, _ = await guard.open(random_ids(8))
        grown = {}
        step, marks = 4, range(LONG_TOKENS // 6, LONG_TOKENS + 1, LONG_TOKENS // 6)
        for position in range(8, LONG_TOKENS + 8, step):
            started = time.process_time()
            await classify(stream, position, [1, 2, 3, 4])
            grown[position] = time.process_time() - started
        for mark in marks:
            fresh, _ = await guard.open(random_ids(mark))
            times = []
            for _ in range(40):
                started = time.process_time()
                await classify(fresh, mark, [1, 2, 3, 4])
                times.append(time.process_time() - started)
            near = [seconds for position, seconds in grown.items() if mark - 200 < position <= mark]
            ratio = sorted(near)[len(near) // 2] / sorted(times)[len(times) // 2]
            if IS_LONG:
                print(
                    f"\nat {mark} tokens: {sorted(near)[len(near) // 2] * 1e3:.3f} ms, {ratio:.2f} of a fresh one's",
                    end="",
                )
            assert ratio < 2.0 or not IS_LONG  # a short run has too few to take medians of
            await fresh.close()
        await stream.close()
        del stream, fresh
        await check_empty(guard)
    finally:
        await guard.close()


# Every way in which a request can end; each must leave nothing.


async def finished(guard: LocalGuard, dice: random.Random) -> None:
    await converse(guard, dice.randrange(400))


async def closed_in_any_order(guard: LocalGuard, dice: random.Random) -> None:
    stream, _ = await guard.open(PROMPT, owner="key")
    streams = [stream, *[stream.fork() for _ in range(3)]]
    for member in dice.sample(streams, 2):
        await classify(member, 40, [1, 2])
    dice.shuffle(streams)
    for member in (*streams, stream):  # one of them twice
        await member.close()


async def closed_in_mid_question(guard: LocalGuard, dice: random.Random) -> None:
    stream, _ = await guard.open(PROMPT, owner="key")
    async with asyncio.TaskGroup() as group:
        question = group.create_task(
            asyncio.wait_for(_failing(classify(stream, 40, random_ids(100))), PATIENCE_SECONDS)
        )
        await asyncio.sleep(dice.random() * 0.003)
        await stream.close()
    assert question.result() in (None, GuardUnavailable)


async def cancelled_open(guard: LocalGuard, dice: random.Random) -> None:
    with suppress(TimeoutError):
        stream, _ = await asyncio.wait_for(guard.open(random_ids(300), owner="key"), dice.random() * 0.003)
        await stream.close()


async def cancelled_feed(guard: LocalGuard, dice: random.Random) -> None:
    stream, _ = await guard.open(PROMPT, owner="key")
    fork = stream.fork()
    with suppress(TimeoutError):
        await asyncio.wait_for(classify(fork, 40, random_ids(200)), dice.random() * 0.003)
    await fork.close()
    await stream.close()


async def refused(guard: LocalGuard, dice: random.Random) -> None:
    """Offered more than there is room for; whatever is refused or late is named."""
    async with asyncio.TaskGroup() as group:
        opens = [group.create_task(_opened_or_refused(guard, size)) for size in dice.choices([200, 900], k=6)]
    assert all(task.result() in (None, GuardOverloaded, GuardTimeout) for task in opens)


async def _opened_or_refused(guard: LocalGuard, size: int) -> type | None:
    try:
        stream, _ = await guard.open(random_ids(size), owner="key")
    except GuardError as exc:
        return type(exc)
    await asyncio.sleep(0.03)
    await stream.close()
    return None


async def not_finite(guard: LocalGuard, dice: random.Random) -> None:
    stream, _ = await guard.open([1, 2, 3] * 12, owner="key")
    fork = stream.fork()
    assert await _failing(classify(fork, 36, [7])) is GuardFault
    assert await _failing(guard.open([1, 7])) is GuardFault
    await stream.close()
    await fork.close()


async def _failing(asked: Awaitable[object]) -> type | None:
    try:
        await asked
    except GuardError as exc:
        return type(exc)
    return None


Way = Callable[[LocalGuard, random.Random], Awaitable[None]]
WAYS: tuple[Way, ...] = (
    finished,
    closed_in_any_order,
    closed_in_mid_question,
    cancelled_open,
    cancelled_feed,
    refused,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_nothing_is_left_when_a_request_ends(small: Small, way: Way) -> None:
    dice = random.Random(1)
    tokens = 2048 if way is refused else 32_768
    budget = tokens * small.loaded.model.architecture.kv_bytes_per_token(4)
    guard = door(small, kv_bytes=budget, window=min(tokens, 1024), limits=Limits(admission_seconds=0.02))
    try:
        for _ in range(200 if IS_LONG else 15):
            await way(guard, dice)
        await check_empty(guard)
    finally:
        await guard.close()


async def test_nothing_is_left_after_faults(small: Small) -> None:
    guard = door(small, with_nan(small.loaded.model, 7))
    try:
        for _ in range(20):
            await not_finite(guard, random.Random(1))
        await check_empty(guard)
    finally:
        await guard.close()


async def test_nothing_is_left_after_poison_and_timeouts(small: Small) -> None:
    guard = door(small, Poisoned(small.loaded.model, 8, lambda: RuntimeError("kernel died")))
    try:
        stream, _ = await guard.open(PROMPT)
        assert await _failing(classify(stream, 40, [8])) is GuardFault
        await stream.close()
        del stream
        await check_empty(guard)
    finally:
        await guard.close()
    slow = Held(small.loaded.model)
    guard = door(small, slow)
    try:
        stream, _ = await guard.open([1, 2, 3])
        guard.settings = replace(guard.settings, verdict_seconds=0.02, open_seconds=0.02)
        with slow.held():
            assert await _failing(classify(stream, 3, [4])) is GuardTimeout
            assert await _failing(guard.open(PROMPT)) is GuardTimeout
        await stream.close()
        del stream
        await check_empty(guard)
    finally:
        await guard.close()


async def test_nothing_is_left_after_crashes_and_a_closed_door(small: Small) -> None:
    model = Crashing(small.loaded.model)
    guard = door(small, model)
    try:
        stream, _ = await guard.open(PROMPT)
        model.crashes = 1
        await classify(stream, 40, random_ids(100))  # it outgrows its slot
        model.crashes = 2  # once more when it is asked again: it is given up
        assert await _failing(guard.open(random_ids(600))) is GuardUnavailable
        await stream.close()
        del stream
        assert guard.metrics().restarts == 3
        await check_empty(guard)
        held, _ = await guard.open(PROMPT)
    finally:
        await guard.close()
    assert guard.streams == 0
    assert await _failing(classify(held, 40, [1])) is GuardUnavailable
    await held.close()
    del held
    for _ in range(20):
        assert await _failing(guard.open(Text(PROMPT))) is GuardUnavailable
    assert alive(Text, KeptStream) == 0  # not in the one error either that all of them met


def test_a_line_that_rises_is_seen_and_noise_is_not() -> None:
    dice = random.Random(0)
    noise = [1 + dice.random() for _ in range(4000)]
    assert drift(noise).is_flat
    rising = [value + number / 4000 for number, value in enumerate(noise)]
    assert not drift(rising).is_flat
    assert 0.3 < drift(rising).share < 0.7
    assert "95 % bounds" in str(drift(noise))
