"""One moderated text: its tokens, their risks, and how much of it is cleared.

A channel is read in one view or more: as it stands; where it is JSON with escapes, as the escapes
spell it; and, if that is wanted and differs, folded. A character is cleared when every view has cleared it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapters.base import JSON_KINDS, Key, Kind, Note
from proxy.conversation import answer_frame
from proxy.escapes import EscapeDecoder
from proxy.folding import Folder
from proxy.policy import Judge, Policy, Verdict
from proxy.retokenizer import Retokenizer, Token
from proxy.risk import RESPONSE_CATEGORIES, SEVERITY, Risk, RiskLevel
from proxy.vocabulary import decode_bytes

# Tokens of one view in one batch: enough to amortise a step, little enough that a whole body
# judged at once does not stall the streams beside it, and that a block saves the rest.
MAX_BATCH_TOKENS = 512

# Below this probability of any harm, a token's share in the category scores is not worth its time.
_SCORED_HARM = 0.01


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens to classify. `position` counts from the first token of the view, frames excluded."""

    key: Key
    kind: Kind
    view: int
    position: int
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Span:
    """A judged token: the source characters it covers."""

    start: int
    end: int
    risk: Risk


class View:
    """One reading of a channel, with a retokenizer, a judge and a guard stream of its own."""

    def __init__(self, kind: Kind, policy: Policy, decoder: EscapeDecoder | Folder | None = None) -> None:
        prefix = answer_frame(kind).prefix
        self._retokenizer = Retokenizer(prefix=prefix)
        self._prefix_bytes = len(prefix.encode())  # of the frame's own text, still to come as tokens
        self._judge = Judge(policy)
        self._decoder = decoder
        self._widths: deque[int] = deque()  # source characters of each decoded one, not yet in a token
        self._leading = True  # the chat template strips leading newlines, so they have no tokens
        self._skipped = 0  # their number, added to the first token
        self._pending: deque[Token] = deque()
        self._starts: deque[int] = deque(maxlen=policy.debounce)  # of the newest judged tokens
        self._tail: int | None = None  # tokens before the provisional end of a paused text
        self._before_tail: tuple[Judge, int, deque[int], deque[int], int] | None = None
        self._peeked = 0  # of the widths, the tail's own
        self._was_resumed = False
        self._is_complete = False
        self._received = 0
        self._end = 0  # characters covered by judged tokens
        self.judged = 0  # tokens that have been to the guard, from the first
        self.frames = 0  # of them the frame's own
        self.cleared = 0  # characters decided and not flagged

    def feed(self, text: str) -> None:
        self._resume()
        self._received += len(text)
        if self._decoder is not None:
            text, widths = self._decoder.feed(text)
            self._widths.extend(widths)
        self._pending.extend(self._retokenizer.feed(self._strip_leading(text)))

    def pause(self) -> None:
        """The channel may have ended: judge its tail as if it had, so that what follows can pass."""
        if isinstance(self._decoder, EscapeDecoder) or self._was_resumed or self._is_complete or self._tail is not None:
            return
        text, widths = ("", []) if self._decoder is None else self._decoder.peek()
        self._widths.extend(widths)
        self._peeked = len(widths)
        self._tail = self.judged + len(self._pending)
        self._pending.extend(self._retokenizer.peek(text))
        self._settle()  # the end may hold nothing that has a token

    def finish(self) -> None:
        if self._is_complete:
            return
        self._resume()
        if self._decoder is not None:
            text, widths = self._decoder.finish()
            self._widths.extend(widths)
            self._pending.extend(self._retokenizer.feed(text))
        self._pending.extend(self._retokenizer.finish())
        self._is_complete = True
        self._settle()

    def batch(self) -> tuple[int, list[int]] | None:
        """(position, ids) of the next tokens to classify."""
        if not self._pending:
            return None
        count = min(len(self._pending), MAX_BATCH_TOKENS)
        return self.judged, [self._pending[i].id for i in range(count)]

    def receive(self, risks: Sequence[Risk]) -> Iterator[tuple[Span, Verdict, int]]:
        """Judge the tokens of the last batch: (span, verdict, start of the run) for each."""
        for risk in risks:
            if self.judged == self._tail and self._before_tail is None:
                places = (self._end, self._starts.copy(), self._widths.copy(), self._skipped)
                self._before_tail = (self._judge.copy(), *places)
            token = self._pending.popleft()
            if self._is_frame(token):
                self.judged += 1
                self.frames += 1
                continue
            span = Span(self._end, self._end + self._source_length(token), risk)
            self._end = span.end
            self.judged += 1
            self._starts.append(span.start)
            verdict = self._judge.judge(risk)
            undecided = self._judge.undecided
            self.cleared = max(self.cleared, self._starts[-undecided] if undecided else self._end)
            run = min(self._judge.run, len(self._starts))
            yield span, verdict, self._starts[-run] if run else span.start
            if verdict is Verdict.BLOCK:
                return
        self._settle()

    def _settle(self) -> None:
        # At the end of a text a run that never reached its length is decided: it was not flagged.
        if not self._pending and (self._is_complete or self._tail is not None):
            self.cleared = self._received

    def _resume(self) -> None:
        """More text after a pause: take the provisional tail back and judge the real tokens."""
        if self._tail is None:
            return
        real = max(0, self._tail - self.judged)
        while len(self._pending) > real:
            self._pending.pop()
        if self._before_tail is not None:
            self._judge, self._end, self._starts, self._widths, self._skipped = self._before_tail
            self.judged = self._tail
        for _ in range(self._peeked):
            self._widths.pop()
        self._tail, self._before_tail, self._was_resumed = None, None, True

    def _is_frame(self, token: Token) -> bool:
        """Is it the frame's own newlines and nothing more? Frames flag falsely, so they are not judged."""
        if not self._prefix_bytes:
            return False
        size = len(decode_bytes([token.id]))
        is_frame = size <= self._prefix_bytes
        self._prefix_bytes = max(0, self._prefix_bytes - size)
        return is_frame

    @property
    def is_flagged(self) -> bool:
        return self._judge.is_flagged

    def _strip_leading(self, text: str) -> str:
        if not self._leading or not text:
            return text
        stripped = text.lstrip("\n")
        for _ in range(len(text) - len(stripped)):
            self._skipped += self._widths.popleft() if self._decoder is not None else 1
        self._leading = not stripped
        return stripped

    def _source_length(self, token: Token) -> int:
        skipped, self._skipped = self._skipped, 0
        if self._decoder is None:
            return token.length + skipped
        return skipped + sum(self._widths.popleft() for _ in range(token.length))


class Channel:
    """A key's text in all its views. Yields batches, takes risks, knows what is cleared and flagged."""

    def __init__(self, key: Key, kind: Kind, policy: Policy, *, folds: bool = False) -> None:
        self.key = key
        self.kind = kind
        self._policy = policy
        self._views = [View(kind, policy)]
        self._awaits_escape = kind in JSON_KINDS
        self._folder = Folder() if folds else None  # looks for a change; the view that it opens has its own
        self._raw: list[str] = []  # the text so far, while a view of it may have to be opened
        self._spans: deque[Span] = deque()
        self.length = 0  # characters received
        self.worst: Span | None = None
        self.scores: dict[str, float] = dict.fromkeys(map(str, RESPONSE_CATEGORIES), 0.0)
        self.flagged: Span | None = None  # the token that completed the first flagged run
        self.flagged_start = 0
        self.block_start: int | None = None  # where the text must end

    def feed(self, text: str) -> None:
        self.length += len(text)
        for view in self._views:
            view.feed(text)
        if self._awaits_escape or self._folder is not None:
            self._raw.append(text)
        if self._awaits_escape and "\\" in text:
            self._awaits_escape = False
            self._open(EscapeDecoder())
        if self._folder is not None:
            self._folder.feed(text)
            if self._folder.has_changed:
                self._open_folded()

    def _open(self, decoder: EscapeDecoder | Folder) -> None:
        view = View(self.kind, self._policy, decoder)
        view.feed("".join(self._raw))
        self._views.append(view)
        if not self._awaits_escape and self._folder is None:
            self._raw.clear()

    def _open_folded(self) -> None:
        self._folder = None
        self._open(Folder())

    def pause(self) -> None:
        self._look_at_end()
        for view in self._views:
            view.pause()

    def _look_at_end(self) -> None:
        # The last word may be another one when the text ends there.
        if self._folder is not None and self._folder.would_change:
            self._open_folded()

    def finish(self) -> None:
        self._look_at_end()
        for view in self._views:
            view.finish()

    def batches(self) -> Iterator[Batch]:
        if self.block_start is not None:
            return
        for number, view in enumerate(self._views):
            if (found := view.batch()) is not None:
                yield Batch(self.key, self.kind, number, *found)

    def receive(self, batch: Batch, risks: Sequence[Risk]) -> None:
        if self.block_start is not None:
            return
        for span, verdict, run_start in self._views[batch.view].receive(risks):
            if batch.view == 0:
                self._spans.append(span)
            self._rate(span)
            if self._views[batch.view].is_flagged and self.flagged is None:
                self.flagged, self.flagged_start = span, run_start
            if verdict is Verdict.BLOCK:
                self.flagged, self.flagged_start, self.block_start = span, run_start, run_start

    def _rate(self, span: Span) -> None:
        if self.worst is None or badness(span.risk) > badness(self.worst.risk):
            self.worst = span
        harm = 1.0 - span.risk.levels[0]
        if harm >= _SCORED_HARM:
            for category, probability in zip(RESPONSE_CATEGORIES, span.risk.categories, strict=True):
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
        while self._spans and self._spans[0].start < end:
            span = self._spans[0]
            if worst is None or badness(span.risk) > badness(worst.risk):
                worst = span
            if span.end > end:
                break
            self._spans.popleft()
        return None if worst is None else note_of(self.key.channel, start, end, worst.risk)


def note_of(channel: str, start: int, end: int, risk: Risk) -> Note:
    category = None if risk.level is RiskLevel.SAFE else str(risk.category)
    return Note(channel, start, end, str(risk.level), category, risk.probability)


def badness(risk: Risk) -> tuple[int, float]:
    # Among Safe tokens the least certain one is the worst.
    return SEVERITY[risk.level], -risk.probability if risk.level is RiskLevel.SAFE else risk.probability
