import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.guard.commands import Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.loader import CheckpointError
from proxy.guard.metrics import Metrics
from proxy.guard.protocol import GuardFault, GuardOverloaded, UnknownStream
from proxy.guard.wire import (
    LENGTH,
    MAX_FRAME_BYTES,
    VERSION,
    Answer,
    Answers,
    FrameDecoder,
    FrameError,
    Hello,
    Pulse,
    answers_of,
    decode_commands,
    decode_news,
    encode,
    frame,
    outcomes_of,
    refusal_of,
)
from proxy.risk import Role


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_any_cut_of_the_bytes_gives_the_same_frames(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(frame, bodies))
    decoder, found = FrameDecoder(), []
    for cut in cuts:
        found += decoder.feed(data[:cut])
        data = data[cut:]
    assert [*found, *decoder.feed(data)] == bodies


def test_a_frame_above_the_limit_is_refused_at_its_head() -> None:
    with pytest.raises(FrameError, match="101 bytes; 100 are allowed"):
        FrameDecoder(100).feed(LENGTH.pack(101))
    assert FrameDecoder(100).feed(LENGTH.pack(100)) == []
    with pytest.raises(FrameError):
        frame(bytes(MAX_FRAME_BYTES + 1))


def test_commands_arrive_as_they_were_sent() -> None:
    commands: list[Command] = [
        Open(1, 2, [3, 4], [1], Role.USER, "key", is_replay=True),
        Feed(5, 2, 2, [6]),
        Fork(2, 7, 3),
        Close(2),
    ]
    assert decode_commands(encode(commands)) == commands


@pytest.mark.parametrize(
    "wrong", [Feed(-1, 2, 0, [1]), Feed(1 << 40, 2, 0, [1]), Close(1 << 40), Fork(1, 2, -1), [1], 7]
)
def test_numbers_of_others_and_what_is_no_command_are_refused(wrong: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_commands(encode([wrong]))


def test_outcomes_arrive_with_their_errors() -> None:
    sent = [
        Outcome(1, b"abcd"),
        Outcome(2, error=GuardOverloaded("no room")),
        Outcome(3, error=UnknownStream("who?")),
        Outcome(4, error=CheckpointError("a kind that only one side knows")),
    ]
    news = decode_news(encode(answers_of(sent)))
    assert isinstance(news, Answers)
    found = outcomes_of(news)
    assert found[0] == sent[0]
    assert [type(one.error).__name__ for one in found[1:]] == ["GuardOverloaded", "UnknownStream", "GuardUnavailable"]
    assert str(found[1].error) == "no room"


def test_an_error_that_nobody_knows_is_a_fault_and_never_a_verdict() -> None:
    (outcome,) = outcomes_of(Answers([Answer(1, b"rows", "FromTheFuture", "what?")]))
    assert isinstance(outcome.error, GuardFault)


def test_a_pulse_brings_the_metrics() -> None:
    news = decode_news(encode(Pulse(Metrics(streams=3))))
    assert isinstance(news, Pulse)
    assert news.metrics.streams == 3


@pytest.mark.parametrize(
    ("hello", "token", "reason"),
    [
        (Hello(VERSION, 1, "secret"), "secret", ""),
        (Hello(VERSION, 1), "", ""),
        (Hello(VERSION, 1, "any"), "", ""),
        (Hello(VERSION, 1, "sécret"), "secret", "the token is not"),
        (Hello(VERSION, 1), "secret", "the token is not"),
        (Hello(VERSION + 1, 1), "", f"speaks version {VERSION}, not {VERSION + 1}"),
    ],
)
def test_who_may_come_in(hello: Hello, token: str, reason: str) -> None:
    found = refusal_of(hello, token)
    assert reason in found
    assert bool(found) == bool(reason)
