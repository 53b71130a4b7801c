"""Risk -> verdict, as tables, debounced over neighbouring tokens.

The default rule is that of the published evaluation (`eval_stream.py` of QwenLM/Qwen3Guard): a
text is flagged at the second of two consecutive Unsafe tokens, in strict mode also at the second
of two consecutive Controversial ones. The paper's rule (arXiv 2510.14276, 4.4) lets Unsafe and
Controversial tokens make up one run together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum

from proxy.risk import Category, Risk, RiskLevel


class Verdict(Enum):
    """Our decision on a token, never the model's."""

    RELEASE = "release"
    WAIT = "wait"  # the token may begin a flagged run; the next one decides
    BLOCK = "block"


class Mode(StrEnum):
    LOOSE = "loose"  # only Unsafe counts
    STRICT = "strict"  # Controversial counts too


class Action(StrEnum):
    """What a flagged run leads to."""

    BLOCK = "block"
    ANNOTATE = "annotate"  # delivered, and the client is told
    MONITOR = "monitor"  # delivered unchanged, and only the record tells
    ALLOW = "allow"  # this category is not flagged at all


class DebounceRule(StrEnum):
    SAME_LEVEL = "same-level"  # the evaluation script: a run is of one level
    ANY_LEVEL = "any-level"  # the paper: a run is of any levels that count


class ReleaseMode(StrEnum):
    HOLD = "hold"  # no character leaves before it is judged
    WINDOW = "window"  # at most `window` characters leave ahead of their verdicts


# Does a token of this level count towards a flagged run?
COUNTS: dict[Mode, dict[RiskLevel, bool]] = {
    Mode.LOOSE: {RiskLevel.SAFE: False, RiskLevel.CONTROVERSIAL: False, RiskLevel.UNSAFE: True},
    Mode.STRICT: {RiskLevel.SAFE: False, RiskLevel.CONTROVERSIAL: True, RiskLevel.UNSAFE: True},
}

# What an action means for a token that completes a flagged run.
VERDICT_OF: dict[Action, Verdict] = {
    Action.BLOCK: Verdict.BLOCK,
    Action.ANNOTATE: Verdict.RELEASE,
    Action.MONITOR: Verdict.RELEASE,
    Action.ALLOW: Verdict.RELEASE,
}

# From mildest to hardest: a client may move to the right, never to the left.
STRENGTH: tuple[Action, ...] = (Action.ALLOW, Action.MONITOR, Action.ANNOTATE, Action.BLOCK)


@dataclass(frozen=True, slots=True)
class Policy:
    """The table from risk to verdict. `categories` overrides `on_flag` for single categories."""

    name: str = "default"
    mode: Mode = Mode.LOOSE
    on_flag: Action = Action.BLOCK
    debounce: int = 2  # tokens in a row that make a flagged run
    rule: DebounceRule = DebounceRule.SAME_LEVEL
    categories: Mapping[Category, Action] = field(default_factory=dict)
    release: ReleaseMode = ReleaseMode.HOLD
    window: int = 0  # characters; only with ReleaseMode.WINDOW

    def action(self, category: Category) -> Action:
        if self.on_flag is Action.MONITOR:
            # A monitored route must not change by a byte, whatever a category asks for.
            return Action.ALLOW if self.categories.get(category) is Action.ALLOW else Action.MONITOR
        return self.categories.get(category, self.on_flag)

    def counts(self, risk: Risk) -> bool:
        return COUNTS[self.mode][risk.level] and self.action(risk.category) is not Action.ALLOW

    def judge_prompt(self, risk: Risk) -> Verdict:
        """A prompt has one verdict, so there is nothing to debounce."""
        return VERDICT_OF[self.action(risk.category)] if self.counts(risk) else Verdict.RELEASE

    @property
    def can_block(self) -> bool:
        return Action.BLOCK in {self.action(category) for category in Category}

    @property
    def holds(self) -> bool:
        """Does anything wait for a verdict? A monitored answer never does."""
        return self.on_flag is not Action.MONITOR

    def tightened(self, at_least: Action) -> "Policy":
        """The same policy with every action raised to `at_least`; none is ever lowered."""

        def harder(action: Action) -> Action:
            return max(action, at_least, key=STRENGTH.index)

        categories = {category: harder(action) for category, action in self.categories.items()}
        return replace(self, on_flag=harder(self.on_flag), categories=categories)


class Judge:
    """Debounces the risks of one text.

    After each `judge`, the last `undecided` tokens wait; all before them are decided. On BLOCK
    the last `run` tokens, this one included, are the flagged run.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._counts = COUNTS[policy.mode]
        self._level = RiskLevel.SAFE
        self.run = 0
        self.undecided = 0
        self.is_flagged = False

    def judge(self, risk: Risk) -> Verdict:
        policy = self._policy
        if not self._counts[risk.level] or not policy.counts(risk):
            self.run = self.undecided = 0
            self._level = RiskLevel.SAFE
            return Verdict.RELEASE
        if policy.rule is DebounceRule.SAME_LEVEL and risk.level is not self._level:
            self.run = 0
        self._level = risk.level
        self.run += 1
        if self.run < policy.debounce:
            self.undecided = self.run if policy.can_block else 0
            return Verdict.WAIT if self.undecided else Verdict.RELEASE
        self.is_flagged = True
        self.undecided = 0
        return VERDICT_OF[policy.action(risk.category)]

    def copy(self) -> "Judge":
        twin = Judge(self._policy)
        twin._level, twin.run = self._level, self.run
        twin.undecided, twin.is_flagged = self.undecided, self.is_flagged
        return twin
