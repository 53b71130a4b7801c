"""A pump reads, judges and writes until the stream has ended, whichever side fails, and never waits itself."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import pytest

from proxy.compiled import is_compiled
from proxy.errors import BUSY, UPSTREAM_BROKE, UPSTREAM_ENDED, Fault
from proxy.framing import LARGE_BYTES
from proxy.guard.protocol import GuardTimeout
from proxy.policy import Action, Policy
from proxy.pump import Pump, Wait
from proxy.risk import Risk
from proxy.stream import ModeratedStream, Outcome
from proxy.structs import Batch
from tests.driver import DONE, WORDS, Guard, answer, chunk, read, stream_of
from tests.fakes import labels

TEXT = "".join(WORDS)


class Ends:
    """Both ends of a pump and its guard, as scripts. None among the chunks: the upstream has no more just now."""

    def __init__(
        self, chunks: Sequence[bytes | Exception | None], guard: Guard | None = None, fails_after: int = 99
    ) -> None:
        self.chunks = iter(chunks)
        self._guard = guard or Guard()
        self._calls_left = fails_after
        self.steps: list[str] = []
        self.sent = b""
        self.is_full = self.fills = False  # the client, and whether each write does that
        self.thinks = False  # the guard, until it is let
        self.open: Callable[[], None] | None = None  # what it thinks about

    def take(self) -> bytes | None:
        found = next(self.chunks, b"")
        if found is None:
            return None
        self.steps.append("read")
        if isinstance(found, Exception):
            raise found
        return found

    def classify(self, batches: Sequence[Batch], told: Callable[[Sequence[Sequence[Risk]] | Exception], None]) -> None:
        self.steps.append("judge")
        self._calls_left -= 1
        found: Any = [self._guard.classify(batch) for batch in batches]
        if self._calls_left < 0:
            found = GuardTimeout("late")
        if self.thinks:
            self.open = lambda: told(found)
        else:
            told(found)

    def aside(self, work: Callable[[], Any], told: Callable[[Any], None]) -> None:
        self.steps.append("aside")
        self.open = lambda: told(work())

    def write(self, data: bytes) -> None:
        self.steps.append("write")
        self.sent += data
        self.is_full = self.fills

    def write_last(self, data: bytes) -> None:
        self.write(data)

    def run(self, stream: ModeratedStream, *, fails_open: bool = False) -> ModeratedStream:
        Pump(stream, self, fails_open=fails_open).go()
        return stream


def test_an_answer_runs_to_its_end_and_no_further() -> None:
    ends = Ends([*answer(WORDS), b"never read"])
    stream = ends.run(stream_of()[0])
    assert stream.outcome is Outcome.COMPLETE
    assert read(ends.sent).content == TEXT
    assert ends.steps.count("read") == len(answer(WORDS))


def test_a_cut_stops_the_reading() -> None:
    ends = Ends(answer(WORDS), Guard(labels("SUU")))
    assert ends.run(stream_of()[0]).outcome is Outcome.CUT
    assert ends.steps.count("read") < len(answer(WORDS)) - 3


def test_a_long_chunk_leaves_as_it_is_judged() -> None:
    """What is cleared does not wait for the rest of the same chunk."""
    ends = Ends([chunk({"content": " word" * 2000}), chunk({}, "stop"), DONE])
    ends.run(stream_of()[0])
    first = ends.steps.index("write")
    assert "judge" in ends.steps[first:]
    assert ends.steps[: first + 1].count("read") == 1


@pytest.mark.parametrize("end", [b"", Fault(UPSTREAM_BROKE, 502, "reset")])
@pytest.mark.parametrize("count", range(len(answer(WORDS)) + 1))
def test_an_end_is_complete_only_where_the_upstream_said_so(end: bytes | Exception, count: int) -> None:
    ends = Ends([*islice(answer(WORDS), count), end])
    stream = ends.run(stream_of()[0])
    is_said = count >= len(answer(WORDS)) - 1
    assert stream.outcome is (Outcome.COMPLETE if is_said else Outcome.FAILED)
    expected = UPSTREAM_BROKE if end else UPSTREAM_ENDED
    assert stream.failure == (None if is_said else expected)
    assert TEXT.startswith(read(ends.sent).content)
    assert read(ends.sent).error is None  # telling is for the caller, who knows what was sent


@pytest.mark.parametrize("after", range(6))
def test_a_guard_that_fails_ends_the_answer_or_opens_the_gate(after: int) -> None:
    closed, opened = Ends(answer(WORDS), fails_after=after), Ends(answer(WORDS), fails_after=after)
    stream = closed.run(stream_of()[0])
    assert stream.outcome is Outcome.FAILED
    assert stream.error == "GuardTimeout: late"
    assert len(read(closed.sent).content) <= len("".join(WORDS[:after]))
    stream = opened.run(stream_of()[0], fails_open=True)
    assert stream.outcome is Outcome.COMPLETE
    assert stream.is_open
    assert stream.error == "GuardTimeout: late"
    assert read(opened.sent).content == TEXT
    assert opened.steps.count("judge") == after + 1  # it is not asked again


def test_what_needs_no_verdict_does_not_wait_for_one() -> None:
    ends = Ends(answer(["hello"]))
    ends.run(stream_of(Policy(on_flag=Action.MONITOR))[0])
    assert ends.steps[:4] == ["read", "write", "read", "write"]


def test_while_the_guard_thinks_nothing_is_read() -> None:
    ends = Ends(answer(WORDS))
    ends.thinks = True
    stream, _ = stream_of()
    pump = Pump(stream, ends, fails_open=False)
    for _ in range(100):
        pump.go()
        if stream.is_finished:
            break
        steps = list(ends.steps)
        pump.go()  # something else has happened meanwhile
        assert (pump.waits_for, ends.steps) == (Wait.VERDICTS, steps)
        assert ends.open is not None
        ends.open()
    assert stream.outcome is Outcome.COMPLETE
    assert read(ends.sent).content == TEXT


def test_where_the_upstream_has_no_more_or_the_client_is_full_it_stops_and_goes_on_later() -> None:
    parts = [part for piece in answer(WORDS) for part in (piece, None)]
    ends = Ends(parts)
    stream, _ = stream_of()
    pump = Pump(stream, ends, fails_open=False)
    ends.fills = True
    for _ in range(1000):
        if stream.is_finished:
            break
        pump.go()
        if ends.is_full:
            steps = list(ends.steps)
            pump.go()
            assert ends.steps == steps
            ends.is_full = False
    assert read(ends.sent).content == TEXT
    assert stream.outcome is Outcome.COMPLETE


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_large_step_is_done_aside_and_nothing_else_meanwhile(is_busy: bool) -> None:
    body = chunk({"content": "x" * (2 * LARGE_BYTES)})
    ends = Ends([body[:-1], body[-1:], chunk({}, "stop"), DONE])
    stream, _ = stream_of()
    stream.open_gate()
    pump = Pump(stream, ends, fails_open=False)
    pump.go()
    for _ in range(10_000):
        if pump.waits_for is not Wait.WORK:
            break
        steps = list(ends.steps)
        pump.go()
        assert ends.steps == steps
        assert ends.open is not None
        if is_busy:
            pump._done(lambda _: None, Fault(BUSY, 503))
        else:
            ends.open()
    assert "aside" in ends.steps
    if is_busy:
        assert (stream.outcome, stream.failure) == (Outcome.FAILED, BUSY)
    else:
        assert stream.outcome is Outcome.COMPLETE
        assert read(ends.sent).content == "x" * (2 * LARGE_BYTES)


def test_an_error_of_the_writer_comes_out() -> None:
    class Gone(Ends):
        def write(self, data: bytes) -> None:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        Gone(answer(WORDS)).run(stream_of()[0])


def test_what_is_no_error_of_the_guards_comes_out() -> None:
    class Wrong(Ends):
        def classify(
            self, batches: Sequence[Batch], told: Callable[[Sequence[Sequence[Risk]] | Exception], None]
        ) -> None:
            told(KeyError("ours"))

    with pytest.raises(KeyError):
        Wrong(answer(WORDS)).run(stream_of()[0])


# No stream gets there by itself, and of a compiled one no method can be replaced. `make test` runs it, uncompiled.
@pytest.mark.skipif(is_compiled(), reason="a compiled stream cannot be made to hang")
def test_a_stream_that_would_never_end_is_ended() -> None:
    """A mistake in a stage must not become a loop that never stops."""

    class Stuck(ModeratedStream):
        @property
        def is_finished(self) -> bool:
            return self.outcome is Outcome.FAILED

    stream, _ = stream_of()
    stream.__class__ = Stuck
    stream.receive_end = lambda: None  # type: ignore[method-assign]
    stream = Ends([]).run(stream)
    assert stream.failure is not None
    assert stream.failure.code == "internal_error"
