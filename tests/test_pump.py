"""The loop reads, judges and writes until the stream has ended, whichever side fails."""

from collections.abc import Sequence
from itertools import islice

import pytest

from proxy.channel import Batch
from proxy.errors import UPSTREAM_BROKE, UPSTREAM_ENDED, Fault
from proxy.guard.protocol import GuardTimeout
from proxy.policy import Action, Policy
from proxy.pump import pump
from proxy.risk import Risk
from proxy.stream import ModeratedStream, Outcome
from tests.driver import DONE, WORDS, Guard, answer, chunk, read, stream_of
from tests.fakes import labels

TEXT = "".join(WORDS)


class Ends:
    """Both ends of a pump, as scripts."""

    def __init__(self, chunks: Sequence[bytes | Exception], guard: Guard | None = None, fails_after: int = 99) -> None:
        self._chunks = iter(chunks)
        self._guard = guard or Guard()
        self._calls_left = fails_after
        self.steps: list[str] = []
        self.sent = b""

    async def read(self) -> bytes:
        found = next(self._chunks, b"")
        self.steps.append("read")
        if isinstance(found, Exception):
            raise found
        return found

    async def classify(self, batches: Sequence[Batch]) -> list[list[Risk]]:
        self.steps.append("judge")
        self._calls_left -= 1
        if self._calls_left < 0:
            raise GuardTimeout("late")
        return [self._guard.classify(batch) for batch in batches]

    async def write(self, data: bytes) -> None:
        self.steps.append("write")
        self.sent += data

    async def run(self, stream: ModeratedStream, *, fails_open: bool = False) -> ModeratedStream:
        await pump(self.read, stream, self.classify, self.write, fails_open=fails_open)
        return stream


async def test_an_answer_runs_to_its_end_and_no_further() -> None:
    ends = Ends([*answer(WORDS), b"never read"])
    stream = await ends.run(stream_of()[0])
    assert stream.outcome is Outcome.COMPLETE
    assert read(ends.sent).content == TEXT
    assert ends.steps.count("read") == len(answer(WORDS))


async def test_a_cut_stops_the_reading() -> None:
    ends = Ends(answer(WORDS), Guard(labels("SUU")))
    assert (await ends.run(stream_of()[0])).outcome is Outcome.CUT
    assert ends.steps.count("read") < len(answer(WORDS)) - 3


async def test_a_long_chunk_leaves_as_it_is_judged() -> None:
    """What is cleared does not wait for the rest of the same chunk."""
    ends = Ends([chunk({"content": " word" * 2000}), chunk({}, "stop"), DONE])
    await ends.run(stream_of()[0])
    first = ends.steps.index("write")
    assert "judge" in ends.steps[first:]
    assert ends.steps[: first + 1].count("read") == 1


@pytest.mark.parametrize("end", [b"", Fault(UPSTREAM_BROKE, 502, "reset")])
@pytest.mark.parametrize("count", range(len(answer(WORDS)) + 1))
async def test_an_end_is_complete_only_where_the_upstream_said_so(end: bytes | Exception, count: int) -> None:
    ends = Ends([*islice(answer(WORDS), count), end])
    stream = await ends.run(stream_of()[0])
    is_said = count >= len(answer(WORDS)) - 1
    assert stream.outcome is (Outcome.COMPLETE if is_said else Outcome.FAILED)
    expected = UPSTREAM_BROKE if end else UPSTREAM_ENDED
    assert stream.failure == (None if is_said else expected)
    assert TEXT.startswith(read(ends.sent).content)
    assert read(ends.sent).error is None  # telling is for the caller, who knows what was sent


@pytest.mark.parametrize("after", range(6))
async def test_a_guard_that_fails_ends_the_answer_or_opens_the_gate(after: int) -> None:
    closed, opened = Ends(answer(WORDS), fails_after=after), Ends(answer(WORDS), fails_after=after)
    stream = await closed.run(stream_of()[0])
    assert stream.outcome is Outcome.FAILED
    assert stream.error == "GuardTimeout: late"
    assert len(read(closed.sent).content) <= len("".join(WORDS[:after]))
    stream = await opened.run(stream_of()[0], fails_open=True)
    assert stream.outcome is Outcome.COMPLETE
    assert stream.is_open
    assert stream.error == "GuardTimeout: late"
    assert read(opened.sent).content == TEXT
    assert opened.steps.count("judge") == after + 1  # it is not asked again


async def test_what_needs_no_verdict_does_not_wait_for_one() -> None:
    ends = Ends(answer(["hello"]))
    await ends.run(stream_of(Policy(on_flag=Action.MONITOR))[0])
    assert ends.steps[:4] == ["read", "write", "read", "write"]


async def test_an_error_of_the_writer_comes_out() -> None:
    ends = Ends(answer(WORDS))

    async def write(_: bytes) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await pump(ends.read, stream_of()[0], ends.classify, write, fails_open=False)


async def test_a_stream_that_would_never_end_is_ended() -> None:
    """A mistake in a stage must not become a loop that never awaits."""

    class Stuck(ModeratedStream):
        @property
        def is_finished(self) -> bool:
            return self.outcome is Outcome.FAILED

    stream, _ = stream_of()
    stream.__class__ = Stuck
    stream.receive_end = lambda: None  # type: ignore[method-assign]
    stream = await Ends([]).run(stream)
    assert stream.failure is not None
    assert stream.failure.code == "internal_error"
