"""One moderated response, without I/O: upstream bytes in, tokens to classify, risks in, bytes out.

stream.receive_data(chunk)
while batches := stream.tokens_to_classify():
    stream.receive_risks(batches, await classify(batches))
data = stream.data_to_send()
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from adapters.base import (
    Adapter,
    AdapterError,
    Assessment,
    Block,
    Delta,
    End,
    Event,
    Failure,
    Finish,
    Key,
    Note,
    Opaque,
    Piece,
    Report,
    UpstreamReportedError,
    Usage,
)
from proxy.channel import Batch, Channel
from proxy.framing import Framing
from proxy.gate import Gate, HeldTooMuch, Released
from proxy.policy import Policy, ReleaseMode
from proxy.reports import block_of, report_of
from proxy.risk import Risk
from proxy.surrogates import SurrogateJoiner

# Held text is bounded by what arrives while one batch is judged; this is far above it and stops
# an upstream that opens channels without end.
MAX_HELD_CHARACTERS = 4 << 20
# Channels of one response: far above parallel tool calls in practice.
MAX_CHANNELS = 512

UNREADABLE = Failure("The upstream sent something that cannot be read.", code="upstream_unreadable")
UPSTREAM_FAILED = Failure("The upstream reported an error in the middle of its answer.", code="upstream_error")
UPSTREAM_ENDED = Failure("The upstream ended its answer early.", code="upstream_ended")
TOO_MUCH_HELD = Failure("The answer cannot be judged: too much of it waits.", code="held_too_much")


class Outcome(Enum):
    """How a response ended. OPEN is the only one that changes."""

    OPEN = "open"
    COMPLETE = "complete"
    CUT = "cut"
    FAILED = "error"


class _ChoiceState(Enum):
    OPEN = "open"
    FINISHED = "finished"  # the upstream said so
    CUT = "cut"


@dataclass(slots=True)
class _Choice:
    state: _ChoiceState = _ChoiceState.OPEN
    last: Key | None = None  # the channel that text last arrived for


@dataclass(frozen=True, slots=True)
class Expected:
    """What the request makes us expect of its answer."""

    choices: int = 1
    prompt_tokens: int = 0
    wants_usage: bool = False  # stream_options.include_usage
    notice: str = ""  # what a cut answer says in place of the rest
    prompt: Assessment | None = None


class ModeratedStream:
    def __init__(self, framing: Framing, adapter: Adapter, policy: Policy, expected: Expected) -> None:
        self._framing = framing
        self._adapter = adapter
        self._policy = policy
        self._expected = expected
        self._gate = Gate(MAX_HELD_CHARACTERS)
        self._choices: dict[int, _Choice] = {}
        self._joiners: dict[Key, tuple[SurrogateJoiner, Delta]] = {}
        self._has_usage = False
        self._is_open = False
        self._has_ended = False
        self._failure: Failure | None = None
        self._out: list[bytes] = []
        self.channels: dict[Key, Channel] = {}
        self.blocks: list[Block] = []
        self.outcome = Outcome.OPEN
        self.error: str | None = None  # for the record: never shown to the client

    # Four doors.

    def receive_data(self, chunk: bytes) -> None:
        """Bytes of the upstream's answer, cut anywhere. What comes after the end is ignored."""
        self._receive(chunk)

    def receive_end(self) -> None:
        """The connection ended. That alone completes nothing."""
        self._receive(None)
        if self._is_reading and not self._all_seen_finished():
            self.fail(UPSTREAM_ENDED)
        elif self._is_reading:
            self._hold(End())

    def tokens_to_classify(self) -> list[Batch]:
        """At most one batch a channel and view; ask again after `receive_risks` until none is left."""
        if self.outcome is not Outcome.OPEN or self._failure is not None or self._is_open:
            return []
        open_channels = (c for c in self.channels.values() if self._choices[c.key.choice].state is not _ChoiceState.CUT)
        return [batch for channel in open_channels for batch in channel.batches()]

    def receive_risks(self, batches: Sequence[Batch], risks: Sequence[Sequence[Risk]]) -> None:
        """One risk for each token of each batch, in order. Raises ValueError for any other count."""
        for batch, batch_risks in zip(batches, risks, strict=True):
            if len(batch_risks) != len(batch.ids):
                raise ValueError(f"{len(batch_risks)} risks for {len(batch.ids)} tokens")
            self.channels[batch.key].receive(batch, batch_risks)

    def data_to_send(self) -> bytes:
        """Everything that may leave now."""
        if self.outcome is Outcome.OPEN:
            self._clear()
            self._release()
            self._block()
            if self._failure is not None and self.outcome is Outcome.OPEN:
                self.outcome = Outcome.FAILED
                self._emit(self._adapter.encode_failure(self._failure))
        data = b"".join(self._out)
        self._out.clear()
        return data

    def fail(self, failure: Failure, error: str | None = None) -> None:
        """End as an error. What was cleared still leaves; what was not never does."""
        if self._failure is None and self.outcome is Outcome.OPEN:
            self._failure = failure
            self.error = error or failure.code

    def open_gate(self) -> None:
        """Release what follows without verdicts. Only for `guard.on_failure = "open"`."""
        self._is_open = True

    @property
    def is_finished(self) -> bool:
        return self.outcome is not Outcome.OPEN

    @property
    def failure(self) -> Failure | None:
        return self._failure

    def delivered(self, key: Key) -> int:
        """Characters of a channel that have left."""
        return self._gate.released(key)

    # Receiving.

    @property
    def _is_reading(self) -> bool:
        return self.outcome is Outcome.OPEN and self._failure is None and not self._has_ended

    def _receive(self, chunk: bytes | None) -> None:
        if not self._is_reading:
            return
        try:
            for event in self._framing.finish() if chunk is None else self._framing.feed(chunk):
                for piece in self._adapter.decode(event):
                    self._receive_piece(piece)
        except UpstreamReportedError as exc:
            self.fail(UPSTREAM_FAILED, str(exc))
        except AdapterError as exc:
            self.fail(UNREADABLE, str(exc))
        except HeldTooMuch as exc:
            self.fail(TOO_MUCH_HELD, str(exc))

    def _receive_piece(self, piece: Piece) -> None:
        if not self._is_reading:
            return
        if isinstance(piece, End) or (isinstance(piece, Opaque) and piece.choice is None):
            self._receive_shared(piece)
            return
        number = piece.key.choice if isinstance(piece, Delta) else piece.choice
        assert number is not None  # an Opaque without a choice was taken above
        choice = self._choices.setdefault(number, _Choice())
        if choice.state is not _ChoiceState.OPEN:
            return  # text after a finish reason, or after a cut, belongs to nothing
        if isinstance(piece, Delta):
            self._receive_delta(choice, piece)
        elif isinstance(piece, Finish):
            choice.state = _ChoiceState.FINISHED
            self._finish_channels(number)
            self._hold(piece)
        else:
            self._hold(piece)

    def _receive_shared(self, piece: Opaque | End) -> None:
        if isinstance(piece, End):
            for number in self._choices:
                self._finish_channels(number)
        else:
            self._has_usage = self._has_usage or "usage" in piece.payload
        self._hold(piece)

    def _receive_delta(self, choice: _Choice, delta: Delta) -> None:
        key = delta.key
        if key not in self.channels:
            if len(self.channels) >= MAX_CHANNELS:
                raise AdapterError(f"more than {MAX_CHANNELS} channels")
            self.channels[key] = Channel(key, delta.kind, self._policy)
            self._joiners[key] = (SurrogateJoiner(), delta)
        if choice.last not in (None, key):
            self.channels[choice.last].pause()
        choice.last = key
        joiner, _ = self._joiners[key]
        text = joiner.feed(delta.text)
        if text != delta.text:
            delta = replace(delta, text=text, logprobs=())
        self._joiners[key] = (joiner, delta)
        self._append(delta)

    def _append(self, delta: Delta) -> None:
        self.channels[delta.key].feed(delta.text)
        self._hold(delta)

    def _finish_channels(self, number: int) -> None:
        for key, channel in self.channels.items():
            if key.choice == number:
                joiner, last = self._joiners[key]
                if rest := joiner.finish():
                    self._append(replace(last, text=rest, extra={}, logprobs=()))
                channel.finish()

    def _hold(self, piece: Piece) -> None:
        if isinstance(piece, End):
            self._has_ended = True
        self._gate.hold(piece)

    def _all_seen_finished(self) -> bool:
        return bool(self._choices) and all(c.state is not _ChoiceState.OPEN for c in self._choices.values())

    # Sending.

    def _clear(self) -> None:
        ahead = self._policy.window if self._policy.release is ReleaseMode.WINDOW else 0
        for key, channel in self.channels.items():
            if channel.block_start is not None:
                self._gate.clear(key, min(channel.cleared, channel.block_start))
            elif self._is_open or not self._policy.holds:
                self._gate.clear(key, channel.length)
            else:
                self._gate.clear(key, channel.cleared, ahead)

    def _release(self) -> None:
        for released in self._gate.release():
            piece = released.piece
            if isinstance(piece, Delta):
                self._emit(self._adapter.encode(piece, self._note(released, piece)))
            elif isinstance(piece, Opaque):
                self._emit(self._adapter.encode(piece, None))
            elif isinstance(piece, Finish):
                self._emit(self._adapter.encode_finish(piece, self._report(piece.choice)))
            else:
                self._end()

    def _note(self, released: Released, delta: Delta) -> Note | None:
        return self.channels[delta.key].note(released.start, released.start + len(delta.text))

    def _block(self) -> None:
        for key, channel in self.channels.items():
            choice = self._choices[key.choice]
            if channel.block_start is None or choice.state is _ChoiceState.CUT:
                continue
            choice.state = _ChoiceState.CUT
            self._gate.drop(key.choice)
            block = block_of(channel, self._gate.released(key), self._expected.notice)
            self.blocks.append(block)
            self._emit(self._adapter.encode_block(block, self._report(key.choice)))
        self._release()  # what waited for a dropped choice
        if self.blocks and self.outcome is Outcome.OPEN and self._is_all_ended():
            if self._expected.wants_usage and not self._has_usage:
                self._emit(self._adapter.encode_usage(self._usage()))
            self._end()

    def _is_all_ended(self) -> bool:
        """Nothing more can come of any choice, so there is no reason to read on."""
        return len(self._choices) >= self._expected.choices and self._all_seen_finished() and self._gate.held == 0

    def _report(self, number: int) -> Report:
        return report_of([c for k, c in self.channels.items() if k.choice == number], self._expected.prompt)

    def _usage(self) -> Usage:
        return Usage(self._expected.prompt_tokens, sum(channel.judged for channel in self.channels.values()))

    def _end(self) -> None:
        self.outcome = Outcome.CUT if self.blocks else Outcome.COMPLETE
        self._emit(self._adapter.encode_end())

    def _emit(self, events: Sequence[Event]) -> None:
        self._out.extend(self._framing.encode(event) for event in events)
