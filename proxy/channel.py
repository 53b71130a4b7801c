"""One moderated text: its tokens, their risks, and how much of it is cleared.

A channel is read in one view or more: as it stands; where it is JSON with escapes, as the escapes
spell it; and, if that is wanted and differs, folded. A character is cleared when every view has cleared it.
"""

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Final

from adapters.base import JSON_KINDS, Key, Kind, Note
from proxy.escapes import EscapeDecoder
from proxy.folding import Folder
from proxy.policy import Policy, Verdict
from proxy.risk import RESPONSE_CATEGORIES, SEVERITY, Risk, RiskLevel
from proxy.structs import Batch, Span
from proxy.surrogates import DeltaJoiner
from proxy.trace import Trace
from proxy.view import View

# What a JSON text begins with: who asked for one (JSON mode, structured outputs) reads what its escapes spell.
_JSON_BEGINS = tuple('{["')
# Below this probability of any harm, a token's share in the category scores is not worth its time.
_SCORED_HARM: Final = 0.01


# Of a text that comes at once, what is read in one step: a tokenizer's 5 ms at the worst. Text beyond ASCII takes
# about three times as long.
STEP: Final = 2048
WIDE: Final = 3


def cost_of(text: str) -> int:
    """What reading it takes of a step."""
    return len(text) if text.isascii() else WIDE * len(text)


def steps_of(text: str) -> list[str]:
    """The text in parts of a step each."""
    size = STEP if text.isascii() else STEP // WIDE
    return [text[start : start + size] for start in range(0, len(text), size)]


class _Pause(Enum):
    """What is due once all that came has been read."""

    PAUSE = "pause"
    FINISH = "finish"


# Asked for with each chunk; a look into the enum takes 0.15 us in Python 3.11.
_SAFE: Final = RiskLevel.SAFE
_SAFE_NAME: Final = str(RiskLevel.SAFE)


class Channel:
    """A key's text in all its views. Yields batches, takes risks, knows what is cleared and flagged."""

    def __init__(
        self, key: Key, kind: Kind, policy: Policy, *, folds: bool = False, trace: Trace | None = None
    ) -> None:
        self.key = key
        self.joiner = DeltaJoiner()  # what its deltas go through first
        self._trace = trace  # for the record
        self.kind = kind
        self._policy = policy
        self.holds, self.ahead = policy.holds, policy.ahead
        self._views = [View(kind, policy)]
        self._awaits_escape = kind in JSON_KINDS
        self._awaits_begin = kind is Kind.CONTENT  # until its first character tells whether it is JSON
        self._folder = Folder() if folds else None  # looks for a change; the view that it opens has its own
        self._raw: list[str] = []  # the text so far, while a view of it may have to be opened
        self._spans: deque[Span] = deque()
        # Text that is still to be read: by all views, or by one that was opened late.
        self._backlog: list[tuple[View | None, str]] = []
        self._then: _Pause | None = None
        self.length = 0  # characters received
        self.worst: Span | None = None
        self.scores: dict[str, float] = dict.fromkeys(map(str, RESPONSE_CATEGORIES), 0.0)
        self.flagged: Span | None = None  # the token that completed the first flagged run
        self.flagged_start = 0
        self.block_start: int | None = None  # where the text must end

    def feed(self, text: str, *, later: bool = False) -> None:
        """`later`: it is only kept, for `read` to read in steps."""
        self.skip(text)
        self._then = None  # it goes on
        if later or self._backlog:
            self._backlog.extend((None, part) for part in steps_of(text))
        else:
            self._read(text)

    def skip(self, text: str) -> None:
        """Count a text that nobody will judge."""
        self.length += len(text)
        if self._trace is not None:
            self._trace.feed(text)

    def _read(self, text: str) -> None:
        for view in self._views:
            view.feed(text)
        if self._awaits_begin:
            self._begin(text)
        if self._awaits_begin or self._awaits_escape or self._folder is not None:
            self._raw.append(text)
        if self._awaits_escape and "\\" in text:
            self._awaits_escape = False
            self._open(EscapeDecoder())
        if self._folder is not None:
            self._folder.feed(text)
            if self._folder.has_changed:
                self._open_folded()

    def _begin(self, text: str) -> None:
        if begun := text.lstrip(" \t\r\n\ufeff"):
            self._awaits_begin = False
            self._awaits_escape = begun.startswith(_JSON_BEGINS)

    def _open(self, decoder: EscapeDecoder | Folder) -> None:
        view = View(self.kind, self._policy, decoder)
        text = "".join(self._raw)
        if cost_of(text) <= STEP:
            view.feed(text)
        else:  # before what is still to be read by all
            self._backlog[:0] = [(view, part) for part in steps_of(text)]
        self._views.append(view)
        if not self._awaits_escape and self._folder is None:
            self._raw.clear()

    def _open_folded(self) -> None:
        self._folder = None
        self._open(Folder())

    def pause(self) -> None:
        if self._then is None:
            self._then = _Pause.PAUSE
            self._end()

    def finish(self) -> None:
        self._then = _Pause.FINISH
        self._end()

    def _end(self) -> None:
        """Pause or finish, unless something is still to be read."""
        if self._backlog or self._then is None:
            return
        # The last word may be another one when the text ends there.
        if self._folder is not None and self._folder.would_change:
            self._open_folded()
            if self._backlog:
                return
        for view in self._views:
            view.finish() if self._then is _Pause.FINISH else view.pause()
        self._then = None

    @property
    def is_behind(self) -> bool:
        """Is there text that `read` has not read?"""
        return bool(self._backlog) and self.block_start is None

    def read(self) -> int:
        """Read on, a step at the most; returns what it has cost."""
        view, text = self._backlog.pop(0)
        if view is None:
            self._read(text)
        else:
            view.feed(text)
        self._end()
        return cost_of(text)

    def batches(self) -> list[Batch]:
        if self.block_start is not None:
            return []
        found: list[Batch] = []
        for number, view in enumerate(self._views):
            if (batch := view.batch()) is not None:
                position, ids = batch
                found.append(Batch(self.key, self.kind, number, position, ids))
        return found

    def receive(self, batch: Batch, risks: Sequence[Risk]) -> None:
        if self.block_start is not None:
            return
        view = self._views[batch.view]
        if (safe := view.receive_safe(risks)) is not None:
            self._receive_safe(batch, safe)
            return
        for span, verdict, run_start in view.receive(risks):
            if batch.view == 0:
                self._spans.append(span)
            self._rate(span)
            if self._trace is not None:
                self._trace.put(batch.view, view.judged - view.frames - 1, span)
            if self.flagged is None and view.is_flagged:
                self.flagged, self.flagged_start = span, run_start
            if verdict is Verdict.BLOCK:
                self.flagged, self.flagged_start, self.block_start = span, run_start, run_start

    def _receive_safe(self, batch: Batch, spans: list[Span]) -> None:
        """They flag nothing and end nothing."""
        if batch.view == 0:
            self._spans.extend(spans)
        worst = self.worst
        for span in spans:
            risk = span.risk
            if worst is None or is_worse(risk, worst.risk):
                worst = span
            if 1.0 - risk.levels[0] >= _SCORED_HARM:
                self._score(risk)
        self.worst = worst
        if self._trace is not None:
            view = self._views[batch.view]
            first = view.judged - view.frames - len(spans)
            for number, span in enumerate(spans, first):
                self._trace.put(batch.view, number, span)

    def _rate(self, span: Span) -> None:
        if self.worst is None or is_worse(span.risk, self.worst.risk):
            self.worst = span
        if 1.0 - span.risk.levels[0] >= _SCORED_HARM:
            self._score(span.risk)

    def _score(self, risk: Risk) -> None:
        harm = 1.0 - risk.levels[0]
        for category, probability in zip(RESPONSE_CATEGORIES, risk.categories, strict=True):
            self.scores[category] = max(self.scores.get(category, 0.0), harm * probability)

    @property
    def cleared(self) -> int:
        """Characters decided in every view."""
        views = self._views
        return views[0].cleared if len(views) == 1 else min(view.cleared for view in views)

    @property
    def judged(self) -> int:
        """Tokens of the text judged in the plain view."""
        return self._views[0].judged - self._views[0].frames

    def note(self, start: int, end: int) -> Note | None:
        """The worst risk of the tokens that cover [start, end). Forgets what lies before `end`."""
        worst: Span | None = None
        spans = self._spans
        while spans and spans[0].start < end:
            span = spans[0]
            if worst is None or is_worse(span.risk, worst.risk):
                worst = span
            if span.end > end:
                break
            spans.popleft()
        return None if worst is None else note_of(self.key.channel, start, end, worst.risk)


def note_of(channel: str, start: int, end: int, risk: Risk) -> Note:
    if risk.level is _SAFE:
        return Note(channel, start, end, _SAFE_NAME, None, risk.probability)
    return Note(channel, start, end, str(risk.level), str(risk.category), risk.probability)


def badness(risk: Risk) -> tuple[int, float]:
    # Among Safe tokens the least certain one is the worst.
    return SEVERITY[risk.level], -risk.probability if risk.level is _SAFE else risk.probability


def is_worse(risk: Risk, other: Risk) -> bool:
    """badness(risk) > badness(other), without the tuples: asked for every token."""
    if risk.level is not other.level:
        return SEVERITY[risk.level] > SEVERITY[other.level]
    is_surer = risk.probability > other.probability
    return is_surer if risk.level is not _SAFE else risk.probability < other.probability
