"""One reading of a channel's text: as it stands, as its escapes spell it, or folded.

Tokens to the guard, risks back, and how many source characters are decided.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from adapters.base import Kind
from proxy.conversation import answer_frame
from proxy.escapes import EscapeDecoder
from proxy.folding import Folder
from proxy.judge import JointJudge, Judge, judge_of
from proxy.policy import Policy, Verdict
from proxy.retokenizer import Retokenizer, Token
from proxy.risk import Risk, RiskLevel
from proxy.structs import Span
from proxy.vocabulary import decode_bytes

# Tokens of one view in one batch: enough to amortise a step, little enough that a whole body
# judged at once does not stall the streams beside it, and that a block saves the rest.
MAX_BATCH_TOKENS: Final = 512


# Forgetting takes as long as several tokens, so it is done for as many at once.
_SPARE_STARTS: Final = 8
# Asked for with each chunk; a look into the enum takes 0.15 us in Python 3.11.
_SAFE: Final = RiskLevel.SAFE


class View:
    """One reading of a channel, with a retokenizer, a judge and a guard stream of its own."""

    def __init__(self, kind: Kind, policy: Policy, decoder: EscapeDecoder | Folder | None = None) -> None:
        prefix = answer_frame(kind).prefix
        self._retokenizer = Retokenizer(prefix=prefix)
        self._prefix_bytes = len(prefix.encode())  # of the frame's own text, still to come as tokens
        self._judge = judge_of(policy)
        self._decoder = decoder
        # Lists, though they are read from the left: an empty deque takes ten times the memory, and these are short.
        self._widths: list[int] = []  # source characters of each decoded one, not yet in a token
        self._leading = True  # the chat template strips leading newlines, so they have no tokens
        self._skipped = 0  # their number, added to the first token
        self._pending: deque[Token] = deque()
        self._starts: list[int] = []  # of the newest judged tokens, at least as many as a run may have
        self._longest_run = policy.longest_run
        self._tail: int | None = None  # tokens before the provisional end of a paused text
        self._before_tail: tuple[Judge | JointJudge, int, list[int], list[int], int] | None = None
        self._peeked = 0  # of the widths, the tail's own
        self._was_resumed = False
        self._is_complete = False
        self._received = 0
        self._end = 0  # characters covered by judged tokens
        self.judged = 0  # tokens that have been to the guard, from the first
        self.frames = 0  # of them the frame's own
        self.cleared = 0  # characters decided and not flagged

    def feed(self, text: str) -> None:
        if self._tail is not None:
            self._resume()
        self._received += len(text)
        if self._decoder is not None:
            text, widths = self._decoder.feed(text)
            self._widths.extend(widths)
        if self._leading:
            text = self._strip_leading(text)
        self._pending.extend(self._retokenizer.feed(text))

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
        pending = self._pending
        if not pending:
            return None
        if len(pending) == 1:
            return self.judged, [pending[0].id]
        return self.judged, [token.id for token in islice(pending, MAX_BATCH_TOKENS)]

    def receive_safe(self, risks: Sequence[Risk]) -> list[Span] | None:
        """What `receive` comes to where all are Safe, as nearly always; None where that takes the long way."""
        if self._decoder is not None or self._tail is not None or self._prefix_bytes or self._skipped:
            return None
        for risk in risks:
            if risk.level is not _SAFE:
                return None
        spans: list[Span] = []
        end, pending, starts = self._end, self._pending, self._starts
        for risk in risks:
            start = end
            end += pending.popleft().length
            starts.append(start)
            spans.append(Span(start, end, risk))
        self._forget_starts()
        self._end = end
        self.judged += len(risks)
        if self._judge.run or self._judge.undecided:
            self._judge.judge(risks[-1])  # a Safe token ends a run; one more changes nothing
        self.cleared = max(self.cleared, end)
        self._settle()
        return spans

    def receive(self, risks: Sequence[Risk]) -> Iterator[tuple[Span, Verdict, int]]:
        """Judge the tokens of the last batch: (span, verdict, start of the run) for each."""
        for risk in risks:
            if self.judged == self._tail and self._before_tail is None:
                places = (self._end, self._starts.copy(), self._widths.copy(), self._skipped)
                self._before_tail = (self._judge.copy(), *places)
            token = self._pending.popleft()
            if self._prefix_bytes and self._is_frame(token):
                self.judged += 1
                self.frames += 1
                continue
            span = Span(self._end, self._end + self._source_length(token), risk)
            self._end = span.end
            self.judged += 1
            self._starts.append(span.start)
            self._forget_starts()
            verdict = self._judge.judge(risk)
            undecided = self._judge.undecided
            self.cleared = max(self.cleared, self._starts[-undecided] if undecided else self._end)
            run = min(self._judge.run, len(self._starts), self._longest_run)
            yield span, verdict, self._starts[-run] if run else span.start
            if verdict is Verdict.BLOCK:
                return
        self._settle()

    def _forget_starts(self) -> None:
        if len(self._starts) >= self._longest_run + _SPARE_STARTS:
            del self._starts[: -self._longest_run]

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
        size = len(decode_bytes([token.id]))
        is_frame = size <= self._prefix_bytes
        self._prefix_bytes = max(0, self._prefix_bytes - size)
        return is_frame

    @property
    def is_flagged(self) -> bool:
        return self._judge.is_flagged

    def _strip_leading(self, text: str) -> str:
        stripped = text.lstrip("\n")
        self._skipped += self._source_characters(len(text) - len(stripped))
        self._leading = not stripped
        return stripped

    def _source_length(self, token: Token) -> int:
        skipped, self._skipped = self._skipped, 0
        return skipped + self._source_characters(token.length)

    def _source_characters(self, count: int) -> int:
        """Of the next `count` decoded ones, which have their place now."""
        if self._decoder is None:
            return count
        length = sum(self._widths[:count])
        del self._widths[:count]
        return length
