"""A stream at a door whose engine keeps only what it was told, against a text that is simply a list."""

import asyncio
import gc
import tracemalloc
import weakref
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.guard.answer import classify
from proxy.guard.commands import Close, Command, Feed, Fork, Open
from proxy.guard.protocol import GuardError, GuardUnavailable
from proxy.guard.rows import write_rows
from proxy.guard.streams import FRAME_TOKENS, KeptStream
from proxy.risk import Role


class ScriptedDoor:
    """An engine's bookkeeping without an engine: each verdict tells which token it is about."""

    def __init__(self, window: int = 100) -> None:
        self.window, self.epoch = window, 1
        self.texts: dict[int, list[int]] = {}
        self.judged: list[int] = []  # ids, in order
        self.seen: list[list[int]] = []  # the engine's text at each question
        self.open: set[int] = set()
        self.error: GuardError | None = None
        self.told: dict[int, Callable[[bytes | GuardError], None]] = {}  # who still waits
        self._last = 0

    def check(self, ids: Sequence[int]) -> list[int]:
        return list(ids)

    def number(self) -> int:
        self._last += 1
        return self._last

    def add(self, stream: KeptStream) -> None:
        self.open.add(stream.id)

    def remove(self, stream: KeptStream) -> None:
        self.open.discard(stream.id)

    def submit(self, command: Command) -> None:
        match command:
            case Fork(stream, child, position):
                self.texts[child] = self.texts[stream][:position]
            case Close(stream):
                del self.texts[stream]

    def put(self, stream: KeptStream, command: Open | Feed, told: Callable[[bytes | GuardError], None]) -> None:
        self.told[command.ticket] = told
        asyncio.get_running_loop().call_soon(lambda: self.told.pop(command.ticket, _nothing)(self.ask(stream, command)))

    def drop(self, ticket: int) -> None:
        del self.told[ticket]

    def ask(self, stream: KeptStream, question: Open | Feed) -> bytes | GuardError:
        if self.error is not None:
            return self.error
        if stream.epoch != self.epoch:
            stream.epoch = self.epoch
            question = stream.replay(question, is_alone=False)
        if isinstance(question, Open):
            assert question.is_replay
            self.texts[stream.id], reads = list(question.ids), question.reads
        else:
            text = self.texts[stream.id]
            assert question.position <= len(text), "the engine would not know this place"
            self.texts[stream.id] = text[: question.position] + question.ids
            reads = list(range(question.position, len(self.texts[stream.id])))
        assert len(self.texts[stream.id]) <= self.window
        self.seen.append(self.texts[stream.id])
        self.judged += [self.texts[stream.id][place] for place in reads]
        return write_rows([row_of(self.texts[stream.id][place]) for place in reads], Role.ASSISTANT)

    def restart(self) -> None:
        self.texts.clear()
        self.epoch += 1


def _nothing(_: bytes | GuardError) -> None:
    """Nobody waits for it any more."""


def row_of(token: int) -> list[float]:
    share = token / 2**20  # exact in float32
    return [1 - share, share, 0.0, 1.0, *[0.0] * 7]


async def opened(door: ScriptedDoor, prompt: list[int]) -> KeptStream:
    stream = KeptStream(door, prompt.copy(), "key", len(prompt))
    begin = stream.begin(1, [], Role.USER)
    assert not begin.is_replay
    stream.epoch, door.texts[stream.id] = door.epoch, list(begin.ids)
    return stream


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["feed", "feed", "feed", "rewind", "fork", "restart"]), st.integers(0, 300)), max_size=30
)


@given(ACTIONS, st.integers(1, 100))
async def test_every_token_is_judged_at_its_place_whatever_happens(actions: list[tuple[str, int]], prompt: int) -> None:
    door = ScriptedDoor()
    text = list(range(prompt))
    stream = await opened(door, text)
    for action, size in actions:
        position = len(text) if action == "feed" else prompt + size % (len(text) - prompt + 1)
        if action == "restart":
            door.restart()
        elif action == "fork":
            parent, stream = stream, stream.fork()
            await parent.close()
        else:
            new = list(range(1000 + size, 1000 + 2 * size))
            door.judged.clear()
            risks = await classify(stream, position, new)
            text = text[:position] + new
            assert door.judged == new, "each token once, none left out"
            assert [risk.levels[1] * 2**20 for risk in risks] == new
            assert stream.position == len(text)
    await stream.close()
    assert not door.open


async def test_a_window_slides_over_a_long_text_and_says_so() -> None:
    door = ScriptedDoor(window=800)
    prompt = list(range(700))
    stream = await opened(door, prompt)
    await classify(stream, 700, [5000 + n for n in range(90)])
    assert stream.slides == 0
    answer = [5000 + n for n in range(90, 2000)]
    await classify(stream, 790, answer)
    assert stream.slides > 0
    newest = door.seen[-1]
    kept_prompt = [token for token in newest if token < 5000]
    assert kept_prompt == prompt[-len(kept_prompt) :]
    assert len(kept_prompt) == 800 // 8 - FRAME_TOKENS
    assert newest[len(kept_prompt) :][:FRAME_TOKENS] == [5000 + n for n in range(FRAME_TOKENS)], "the frame of the turn"
    tail = newest[len(kept_prompt) + FRAME_TOKENS :]
    assert tail == list(range(tail[0], 7000)), "the newest tokens, without a gap"
    assert all(len(seen) <= 800 for seen in door.seen)
    for before, after in zip(door.seen, door.seen[1:], strict=False):
        assert set(after[-800:]) & set(before[-800 // 4 :]), "the overlap is read again"


async def test_after_an_error_the_stream_is_as_it_was() -> None:
    door = ScriptedDoor()
    stream = await opened(door, [1, 2, 3])
    await classify(stream, 3, [4, 5])
    door.error = GuardUnavailable("gone")
    with pytest.raises(GuardUnavailable, match="gone"):
        await classify(stream, 4, [6])
    door.error = None
    assert stream.position == 4
    await classify(stream, 4, [7])
    assert door.seen[-1] == [1, 2, 3, 4, 7]


async def test_who_gives_up_takes_the_question_back_and_may_ask_again() -> None:
    door = ScriptedDoor(window=800)
    stream = await opened(door, [1, 2, 3])
    for first, pieces in (([4, 5], 1), (list(range(1000, 3000)), 3)):
        answer = classify(stream, 3, first)
        for _ in range(pieces - 1):
            await asyncio.sleep(0)
        assert not answer.done()
        assert answer.cancel()
        assert door.told == {}, "the door has forgotten it"
        assert stream.position == 3
        assert not answer.cancel()
    assert len(await classify(stream, 3, [6])) == 1
    assert door.seen[-1][-1] == 6


async def test_a_task_that_waits_and_is_cancelled_takes_it_back_too() -> None:
    door = ScriptedDoor()
    stream = await opened(door, [1, 2, 3])

    async def ask() -> None:
        await classify(stream, 3, [4])

    task = asyncio.ensure_future(ask())
    while not door.told:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert door.told == {}
    assert len(await classify(stream, 3, [5])) == 1


async def test_one_question_at_a_time_at_a_place_that_there_is() -> None:
    door = ScriptedDoor()
    stream = await opened(door, [1, 2, 3])
    asking = classify(stream, 3, [4])
    with pytest.raises(RuntimeError, match="still classifying"):
        await classify(stream, 3, [5])
    assert len(await asking) == 1
    with pytest.raises(ValueError, match="position 9 of a stream of 4"):
        await classify(stream, 9, [5])
    assert await classify(stream, 4, []) == []
    assert stream.position == 4


async def test_a_failure_leaves_nothing_for_the_garbage_collector() -> None:
    door = ScriptedDoor()
    stream = await opened(door, [1, 2, 3])
    door.error = GuardUnavailable("gone")
    gc.disable()
    try:
        answer = classify(stream, 3, [4])
        await asyncio.wait([answer])
        assert isinstance(answer.exception(), GuardUnavailable)
        kept = weakref.ref(answer)
        del answer
        assert kept() is None
    finally:
        gc.enable()


async def test_a_closed_stream_takes_no_questions() -> None:
    door = ScriptedDoor()
    stream = await opened(door, [1, 2, 3])
    await stream.close()
    await stream.close()
    assert door.texts == {}
    with pytest.raises(GuardUnavailable, match="closed"):
        await classify(stream, 3, [4])
    with pytest.raises(GuardUnavailable, match="closed"):
        stream.fork()


async def test_a_stream_of_an_engine_that_is_gone_is_not_closed_there() -> None:
    door = ScriptedDoor()
    stream = await opened(door, [1, 2, 3])
    door.restart()
    child = stream.fork()
    await classify(child, 3, [4])
    await stream.close()
    assert door.texts == {child.id: [1, 2, 3, 4]}


async def test_a_long_text_takes_some_bytes_a_token_and_a_fork_no_more() -> None:
    count = 50_000
    stream = await opened(ScriptedDoor(2 * count), list(range(1_000, 1_000 + count)))
    tracemalloc.start()
    try:
        fork = stream.fork()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert fork.position == count
    assert size < 5 * count + 8 * count  # its own, and the list that the scripted engine makes
