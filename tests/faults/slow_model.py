"""What a stream must do, slowly and obviously: whole texts, the reference tokenizer, one loop over labels.

It shares nothing with the incremental code but the vocabulary file and what a policy says.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy.policy import Policy
from proxy.risk import RiskLevel
from proxy.vocabulary import decode
from tests.fakes import CONTROVERSIAL, SAFE, UNSAFE
from tests.judge import judge
from tests.test_judge import flagged_at

# The newest token's own letters are its label, so that labels change back and forth within one text.
FLAGGED = {"bad": UNSAFE, "evil": UNSAFE, "odd": CONTROVERSIAL}
LETTER = {SAFE: "S", CONTROVERSIAL: "C", UNSAFE: "U"}
FRAMES = {"content": "\n\n", "reasoning_content": "\n"}  # what the chat template puts before a text


def level_of(letters: str) -> RiskLevel:
    return FLAGGED.get(letters.strip(), SAFE)


def newest_word(ids: Sequence[int]) -> RiskLevel:
    """The same labels, as a rule for the scripted guards."""
    return level_of(decode(ids[-1:]))


@functools.lru_cache(1 << 14)
def labelled(text: str, frame: str) -> tuple[str, list[int]]:
    """The label and the first character of each token of a whole text."""
    stripped = text.lstrip("\n")  # as the chat template does
    whole, skipped = frame + stripped, len(text) - len(stripped)
    spans = [(start, end) for start, end in judge().encode(whole).offsets if end > len(frame)]
    starts = [start - len(frame) + skipped for start, _ in spans]
    return "".join(LETTER[level_of(whole[start:end])] for start, end in spans), [0, *starts[1:]]


def onset(text: str, frame: str, policy: Policy) -> int | None:
    """The first character of the first flagged run, if `text` is all there is; None where nothing is flagged."""
    labels, starts = labelled(text, frame)
    end = flagged_at(labels, policy.mode, policy.rule, policy.debounce)
    return None if end is None else starts[end - policy.debounce + 1]


@dataclass
class Said:
    """One channel, as the upstream said it."""

    channel: str
    text: str = ""
    paused: int | None = None  # its length when another channel of the choice spoke: judged as if it ended there

    def onsets(self, policy: Policy) -> list[int]:
        """Where it may be cut: by the text itself, and by the text that a pause took for the whole."""
        texts = {self.text, self.text if self.paused is None else self.text[: self.paused]}
        found = (onset(text, FRAMES[self.channel], policy) for text in texts)
        return [place for place in found if place is not None]

    def is_flagged(self, policy: Policy) -> bool:
        return onset(self.text, FRAMES[self.channel], policy) is not None

    def allowed(self, policy: Policy) -> int:
        """Most characters that may leave in hold mode, if no more is said."""
        place = onset(self.text, FRAMES[self.channel], policy)
        bound = len(self.text) if place is None else place
        return max(bound, self.paused or 0)  # what a pause let go cannot be taken back


@dataclass
class Choice:
    said: dict[str, Said] = field(default_factory=dict)
    last: str | None = None  # the channel that spoke last
    is_finished: bool = False

    def say(self, channel: str, text: str) -> None:
        if self.is_finished:
            return
        if self.last not in (None, channel):
            before = self.said[self.last]
            before.paused = len(before.text) if before.paused is None else before.paused
        self.last = channel
        self.said.setdefault(channel, Said(channel)).text += text
