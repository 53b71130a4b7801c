"""One moderated response, without I/O: upstream bytes in, tokens to classify, risks in, bytes out.

stream.receive_data(chunk)
while batches := stream.tokens_to_classify():
    stream.receive_risks(batches, await classify(batches))
data = stream.data_to_send()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from adapters.base import (
    Adapter,
    Assessment,
    Block,
    Delta,
    End,
    Event,
    Failure,
    Finish,
    Key,
    Opaque,
    Piece,
    Report,
    Usage,
)
from adapters.errors import AdapterError, UpstreamReportedError
from proxy.channel import Channel
from proxy.channels import Channels
from proxy.choices import Choices
from proxy.errors import TOO_MUCH_HELD, UNREADABLE, UPSTREAM_ENDED, UPSTREAM_FAILED
from proxy.framing import LARGE_BYTES, Framing
from proxy.gate import MAX_HELD_CHARACTERS, Gate, HeldTooMuch
from proxy.hold_times import Timing
from proxy.policy import Policy
from proxy.reports import block_of, report_of
from proxy.risk import Risk
from proxy.structs import Batch
from proxy.trace import Traces


class Outcome(Enum):
    """How a response ended. OPEN is the only one that changes."""

    OPEN = "open"
    COMPLETE = "complete"
    CUT = "cut"
    FAILED = "error"


_OPEN: Final = Outcome.OPEN  # asked for with each chunk; a look into the enum takes 0.15 us in Python 3.11


@dataclass(frozen=True, slots=True)
class Expected:
    """What the request makes us expect of its answer."""

    choices: int = 1
    prompt_tokens: int = 0
    wants_usage: bool = False  # stream_options.include_usage
    notice: str = ""  # what a cut answer says in place of the rest
    prompt: Assessment | None = None
    folded_view: bool = False  # judge what readers read over, too
    traces: Traces | None = None  # where the risks of all tokens are kept for the record
    timing: Timing | None = None  # where it is counted how long text was held


class ModeratedStream:
    def __init__(self, framing: Framing, adapter: Adapter, policy: Policy, expected: Expected) -> None:
        self._framing = framing
        self._adapter = adapter
        self._expected = expected
        self._gate = Gate(MAX_HELD_CHARACTERS, whole_calls=policy.keeps_calls_whole, timing=expected.timing)
        self._choices = Choices(expected.choices)
        self._channels = Channels(policy, folds=expected.folded_view, traces=expected.traces)
        self._has_usage = self._is_open = self._has_ended = False
        # Whether something may have become free to leave: in hold mode more text of the same channel never is.
        self.has_news = True
        self.has_more_tokens = False  # than `tokens_to_classify` has just returned
        # Would the next step keep an event loop from others? Then it belongs into a thread.
        self.is_large = self._is_event_large = False
        self._has_block = False  # whether a channel must end
        self._always_has_news = policy.may_run_ahead
        self.failure: Failure | None = None
        self._out: list[bytes] = []
        self.blocks: list[Block] = []
        self.outcome = _OPEN
        self.error: str | None = None  # for the record: never shown to the client

    # Four doors.

    def receive_data(self, chunk: bytes) -> None:
        """Bytes of the upstream's answer, cut anywhere. What comes after the end is ignored."""
        self._receive(chunk)

    def receive_end(self) -> None:
        """The connection ended. That alone completes nothing."""
        self._receive(None)
        self.receive_break(UPSTREAM_ENDED)

    def receive_break(self, failure: Failure, error: str | None = None) -> None:
        """No more will come, for this reason. What the upstream has completed stays complete."""
        if self._is_reading and self._choices.are_all_ended:
            self._hold(End())
        elif self._is_reading:
            self.fail(failure, error)

    def tokens_to_classify(self) -> list[Batch]:
        """At most one batch a channel and view; ask again after `receive_risks` until none is left."""
        if self.outcome is not _OPEN or self.failure is not None or self._is_open:
            return []
        batches = self._channels.batches(self._choices.is_cut)
        self.has_news = self.has_news or self._channels.has_read
        self.has_more_tokens = self._channels.has_more
        return batches

    def receive_risks(self, batches: Sequence[Batch], risks: Sequence[Sequence[Risk]]) -> None:
        """One risk for each token of each batch, in order. Raises ValueError for any other count."""
        if len(risks) != len(batches):
            raise ValueError(f"the risks of {len(risks)} batches for {len(batches)}")
        for batch, batch_risks in zip(batches, risks):  # noqa: B905 (a strict one takes keywords, which is slower)
            if len(batch_risks) != len(batch.ids):
                raise ValueError(f"{len(batch_risks)} risks for {len(batch.ids)} tokens")
            channel = self._channels.at(batch.key)
            channel.receive(batch, batch_risks)
            self._has_block = self._has_block or channel.block_start is not None
        self.has_news = True

    def data_to_send(self) -> bytes:
        """Everything that may leave now. How a failure is told depends on what left before: see `failure`."""
        if self.outcome is _OPEN and self.has_news:
            self.has_news = False
            self._clear()
            self._release()
            self._block()
            if self.failure is not None and self.outcome is _OPEN:
                self.outcome = Outcome.FAILED
            self._weigh()
        return self._take()

    def encode_failure(self, failure: Failure) -> bytes:
        """The last words to a client that has got a part of the answer."""
        self._emit(self._adapter.encode_failure(failure))
        return self._take()

    def fail(self, failure: Failure, error: str | None = None) -> None:
        """End as an error. What was cleared still leaves; what was not never does."""
        if self.failure is None and self.outcome is _OPEN:
            self.failure = failure
            self.has_news = True
            self.error = error or failure.code

    def open_gate(self, error: str | None = None) -> None:
        """Release what follows without verdicts. Only for `guard.on_failure = "open"`, and where nothing is held."""
        self._is_open = self._always_has_news = self.has_news = True
        self._channels.stop()
        self.error = error

    @property
    def channels(self) -> Mapping[Key, Channel]:
        return self._channels.by_key

    @property
    def is_finished(self) -> bool:
        return self.outcome is not _OPEN

    @property
    def is_open(self) -> bool:
        return self._is_open  # then text passes without verdicts

    def delivered(self, key: Key) -> int:
        """Characters of a channel that have left."""
        return self._gate.released(key)

    # Receiving.

    @property
    def _is_reading(self) -> bool:
        return self.outcome is _OPEN and self.failure is None and not self._has_ended

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
            self.fail(replace(UNREADABLE, limit=exc.limit), str(exc))
        except HeldTooMuch as exc:
            self.fail(TOO_MUCH_HELD, str(exc))
        self.has_news = self.has_news or self._always_has_news
        self._is_event_large = self._framing.held > LARGE_BYTES
        self._weigh()

    def _weigh(self) -> None:
        self.is_large = self._is_event_large or self._gate.held > LARGE_BYTES

    def _receive_piece(self, piece: Piece) -> None:
        if not self._is_reading:
            return
        if isinstance(piece, Delta):
            # Text after a finish reason, or after a cut, belongs to nothing.
            if self._choices.is_open(piece.key.choice):
                self.has_news = self.has_news or not self._channels.goes_on(piece)
                self._gate.hold(self._channels.feed(piece))
        elif isinstance(piece, End) or piece.choice is None:
            self._receive_shared(piece)
        elif self._choices.is_open(piece.choice):
            if isinstance(piece, Finish):
                self._choices.finish(piece.choice)
                self._finish_channels(piece.choice)
            self._hold(piece)

    def _receive_shared(self, piece: Opaque | End) -> None:
        for number in self._choices.uncut if isinstance(piece, End) else ():
            self._finish_channels(number)
        self._has_usage = self._has_usage or (isinstance(piece, Opaque) and "usage" in piece.payload)
        self._hold(piece)

    def _finish_channels(self, number: int) -> None:
        for delta in self._channels.finish(number):
            self._hold(delta)

    def _hold(self, piece: Piece) -> None:
        if not isinstance(piece, Delta):
            self.has_news = True
            self._has_ended = self._has_ended or isinstance(piece, End)
        self._gate.hold(piece)

    # Sending.

    def _clear(self) -> None:
        for key, channel in self._channels.by_key.items():
            if channel.block_start is not None:
                self._gate.clear(key, min(channel.cleared, channel.block_start))
            elif self._is_open:
                self._gate.clear(key, channel.length)
            elif not channel.holds:
                self._gate.clear(key, channel.cleared, channel.length - channel.cleared)
            else:
                # What may leave before its verdict: nothing, once none will come.
                self._gate.clear(key, channel.cleared, channel.ahead if self.failure is None else 0)

    def _release(self) -> None:
        for released in self._gate.release():
            piece = released.piece
            if isinstance(piece, Delta):
                channel = self._channels.at(piece.key)
                note = channel.note(released.start, released.start + len(piece.text))
                # Of a watched text only the record tells.
                self._emit(self._adapter.encode(piece, note if channel.holds else None))
            elif isinstance(piece, Opaque):
                self._emit(self._adapter.encode(piece, None))
            elif isinstance(piece, Finish):
                self._emit(self._adapter.encode_finish(piece, self._report(piece.choice)))
            else:
                self._end()

    def _block(self) -> None:
        if not self._has_block:
            return
        for key, channel in self.channels.items():
            if channel.block_start is None or self._choices.is_cut(key.choice):
                continue
            self._choices.cut(key.choice)
            self._gate.drop(key.choice)
            block = block_of(channel, self._gate.released(key), self._expected.notice)
            self.blocks.append(block)
            self._emit(self._adapter.encode_block(block, self._report(key.choice)))
        self._release()  # what waited for a dropped choice
        # Nothing more can come of any choice, so there is no reason to read on.
        if self.outcome is _OPEN and self._choices.are_all_ended and self._gate.is_empty:
            if self._expected.wants_usage and not self._has_usage:
                self._emit(self._adapter.encode_usage(self._usage()))
            self._end()

    def _report(self, number: int) -> Report:
        return report_of(self._channels.of(number), self._expected.prompt, is_open=self._is_open)

    def _usage(self) -> Usage:
        return Usage(self._expected.prompt_tokens, sum(channel.judged for channel in self.channels.values()))

    def _end(self) -> None:
        self.outcome = Outcome.CUT if self.blocks else Outcome.COMPLETE
        self._emit(self._adapter.encode_end())

    def _emit(self, events: Sequence[Event]) -> None:
        for event in events:
            self._out.append(self._framing.encode(event))

    def _take(self) -> bytes:
        data = b"".join(self._out)
        self._out.clear()
        return data
