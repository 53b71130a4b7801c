"""One record a request: what came of it, how much was judged, how long it took. No content, no keys."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any

import msgspec

from adapters.base import Key, Note
from proxy.channel import Channel, note_of
from proxy.identity import CREDENTIALS
from proxy.inquiry import Lags
from proxy.redaction import Redactor
from proxy.settings import UpstreamSettings
from proxy.stream import ModeratedStream, Outcome
from proxy.telemetry.request import RequestNotes
from proxy.trace import Said, Traces

LOGGER = logging.getLogger("weir.records")


class RequestOutcome(StrEnum):
    COMPLETE = "complete"
    CUT = "cut"
    ERROR = "error"  # an answer that had begun ended as an error
    REFUSED = "refused"  # an error status before any byte of an answer
    CLIENT_GONE = "client_gone"


OUTCOME_OF = {
    Outcome.COMPLETE: RequestOutcome.COMPLETE,
    Outcome.CUT: RequestOutcome.CUT,
    Outcome.FAILED: RequestOutcome.ERROR,
    Outcome.OPEN: RequestOutcome.CLIENT_GONE,  # unless whoever ended it says otherwise
}


class Scanned(StrEnum):
    FULL = "full"
    PARTIAL = "partial"
    NONE = "none"


@dataclass(slots=True)
class ChannelRecord:
    choice: int
    channel: str
    received: int  # characters from the upstream
    scanned: int  # of them judged and decided
    delivered: int  # of them sent to the client
    tokens: int
    worst: Note | None = None
    flagged: Note | None = None
    is_cut: bool = False  # where it was flagged, it ended


def channel_record(key: Key, channel: Channel, delivered: int) -> ChannelRecord:
    worst, flagged = channel.worst, channel.flagged
    return ChannelRecord(
        choice=key.choice,
        channel=key.channel,
        received=channel.length,
        scanned=channel.cleared,
        delivered=delivered,
        tokens=channel.judged,
        worst=note_of(key.channel, worst.start, worst.end, worst.risk) if worst else None,
        flagged=note_of(key.channel, channel.flagged_start, flagged.end, flagged.risk) if flagged else None,
        is_cut=channel.block_start is not None,
    )


def channel_records(stream: ModeratedStream) -> list[ChannelRecord]:
    return [channel_record(key, channel, stream.delivered(key)) for key, channel in stream.channels.items()]


def scanned_of(channels: Sequence[ChannelRecord], unscanned_parts: Sequence[str]) -> Scanned:
    """Said only of what is so: full where every delivered character has its verdict."""
    if all(channel.scanned >= channel.delivered for channel in channels):
        return Scanned.PARTIAL if unscanned_parts else Scanned.FULL
    return Scanned.PARTIAL if any(channel.scanned for channel in channels) else Scanned.NONE


@dataclass(slots=True)
class Record:
    """Filled in while a request is served, written once at its end."""

    request_id: str
    endpoint: str
    policy: str
    guard: str
    key: str = ""  # the name of the caller's key, where keys are ours
    started: float = field(default_factory=time.time)
    model: str = ""
    upstream: str = ""
    passthrough: str = ""  # the family of a route that nobody judges
    stream: bool = False
    outcome: RequestOutcome = RequestOutcome.REFUSED
    status: int = 0
    error: str | None = None
    scanned: Scanned = Scanned.NONE
    prompt_tokens: int = 0
    dropped_turns: int = 0
    window_slides: int = 0  # how often an answer outgrew the guard's window: judged on, with less of its past in mind
    unscanned_parts: tuple[str, ...] = ()
    prompt: Note | None = None
    prompt_flagged: bool = False
    prompt_blocked: bool = False  # for which no answer was sent
    channels: list[ChannelRecord] = field(default_factory=list)
    dropped_fields: int = 0
    dropped_parameters: tuple[str, ...] = ()  # of the request: the upstream's dialect has no place for them
    uploaded_bytes: int = 0  # of a passthrough alone
    downloaded_bytes: int = 0
    upstream_first_byte_seconds: float | None = None
    first_byte_seconds: float | None = None
    guard_lag_p50_seconds: float | None = None
    guard_lag_max_seconds: float | None = None
    seconds: float = 0.0
    _begin: float = field(default_factory=time.monotonic)
    _traces: Traces | None = None
    _packs_text: bool = False
    _secrets: tuple[str, ...] = ()
    _notes: RequestNotes | None = None

    def elapsed(self) -> float:
        return time.monotonic() - self._begin

    @property
    def first_byte_added_seconds(self) -> float | None:
        """From the upstream's head to our first byte: for a verdict on the prompt, or on the first text."""
        if self.first_byte_seconds is None or self.upstream_first_byte_seconds is None:
            return None
        return max(0.0, self.first_byte_seconds - self.upstream_first_byte_seconds)

    @property
    def tokens(self) -> int:
        """Of prompt and answer, as the guard counts them."""
        return self.prompt_tokens + sum(channel.tokens for channel in self.channels)

    @property
    def traces(self) -> Traces | None:
        """What is kept of each token, where records are."""
        return self._traces

    @property
    def notes(self) -> RequestNotes | None:
        """What its spans need, where they are wanted."""
        return self._notes

    def follow(self, notes: RequestNotes) -> None:
        self._notes = notes

    def note_prompt(self, begin: float) -> None:
        """The guard is done with the prompt, one way or another."""
        if self._notes is not None:
            self._notes.prompt = (begin, self.elapsed())

    def note_upstream(self, settings: UpstreamSettings) -> None:
        """The upstream is called now."""
        if self._notes is not None:
            self._notes.call(settings, self.elapsed())

    def note_head(self, status: int) -> None:
        self.upstream_first_byte_seconds = self.elapsed()
        if self._notes is not None:
            self._notes.upstream_status = status

    def note_upstream_end(self) -> None:
        if self._notes is not None:
            self._notes.end_call(self.elapsed())

    def note_answer(self, lags: Lags) -> None:
        if self._notes is not None and lags.count:
            self._notes.batches = lags.count
            end = self.elapsed() if lags.last is None else lags.last - self._begin
            self._notes.answer = (lags.first - self._begin, end)

    def note_error(self, code: str) -> None:
        """What the client was told, by a name of ours."""
        if self._notes is not None:
            self._notes.error = code

    def sent_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Those of the client, as they go on to the upstream."""
        return headers if self._notes is None else self._notes.sent_headers(headers)

    def trace(
        self,
        prompt: Sequence[Mapping[str, Any]],
        headers: Mapping[str, str],
        *,
        keeps_text: bool,
        tells_text: bool = False,
    ) -> None:
        """Keep the risks of all tokens to come; with a text `prompt`, too, and none of the caller's credentials.

        `keeps_text` for the record, `tells_text` for spans.
        """
        self._traces = Traces(keeps_text=keeps_text or tells_text, prompt=prompt)
        self._packs_text = keeps_text
        if self._notes is not None:
            self._notes.tells_text = tells_text
        given = [text for name, text in headers.items() if name.lower() in CREDENTIALS]
        self._secrets = tuple(part for text in given for part in text.split()[-1:])

    @property
    def bytes_held(self) -> int:
        """About what it takes of memory."""
        return 2000 + (0 if self._traces is None else self._traces.bytes_held)

    def pack_trace(self, redactor: Redactor) -> bytes | None:
        if self._traces is None:
            return None
        return self._traces.pack(redactor.also(self._secrets).redact, with_text=self._packs_text)

    def said(self, redactor: Redactor) -> Said:
        """The texts that are kept, without keys."""
        return Said() if self._traces is None else self._traces.said(redactor.also(self._secrets).redact)

    def settle(self, stream: ModeratedStream, *, is_judged: bool) -> None:
        """What came of the answer."""
        self.outcome = OUTCOME_OF[stream.outcome]
        self.error = stream.error or self.error
        self.channels = channel_records(stream)
        self.scanned = scanned_of(self.channels, self.unscanned_parts) if is_judged else Scanned.NONE

    def as_dict(self) -> dict[str, Any]:
        """All that is told, in strings, numbers, lists and dictionaries."""
        values = dict(zip(TOLD, _told_of(self), strict=True))
        for name in TIMES:
            if (seconds := values[name]) is not None:
                values[name] = round(seconds, 6)
        values |= msgspec.to_builtins({name: values[name] for name in STRUCTURED}, enc_hook=_as_told)
        return values

    def write(self) -> None:
        self.seconds = self.elapsed()
        if LOGGER.isEnabledFor(logging.INFO):
            values = self.as_dict()
            line = msgspec.json.encode(values)
            # Some characters that are no line ends in JSON are for those who read a log line by line.
            LOGGER.info(line.decode() if line.isascii() else json.dumps(values, separators=(",", ":")))


TOLD = tuple(one.name for one in fields(Record) if not one.name.startswith("_"))
TIMES = tuple(name for name in TOLD if name == "started" or name.endswith("seconds"))
STRUCTURED = ("outcome", "scanned", "prompt", "channels", "unscanned_parts", "dropped_parameters")
_told_of = attrgetter(*TOLD)  # dataclasses.asdict takes a fifth of a short request's time


def _as_told(value: object) -> dict[str, Any] | None:
    """What msgspec does not know: notes, and what is nobody else's business."""
    return {name: getattr(value, name) for name in Note.__match_args__} if isinstance(value, Note) else None
