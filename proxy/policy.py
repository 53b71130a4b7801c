"""Risk -> verdict, as tables, debounced over neighbouring tokens.

The default rule is that of the published evaluation (`eval_stream.py` of QwenLM/Qwen3Guard): a
text is flagged at the second of two consecutive Unsafe tokens, in strict mode also at the second
of two consecutive Controversial ones. The paper's rule (arXiv 2510.14276, 4.4) lets Unsafe and
Controversial tokens make up one run together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from functools import cached_property

from adapters.base import Key, Kind
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

# Of several verdicts on one token the hardest counts.
HARDNESS: tuple[Verdict, ...] = (Verdict.RELEASE, Verdict.WAIT, Verdict.BLOCK)

# From mildest to hardest: a client may move to the right, never to the left.
STRENGTH: tuple[Action, ...] = (Action.ALLOW, Action.MONITOR, Action.ANNOTATE, Action.BLOCK)


class Part(StrEnum):
    """What of a conversation may have a policy of its own."""

    PROMPT = "prompt"
    CONTENT = "content"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    TOOLS = "tools"  # names and arguments of tool calls


def part_of(key: Key, kind: Kind) -> Part | None:
    """None for what is neither, such as a transcript or a field that nobody knows: the policy itself holds there."""
    if kind is Kind.REASONING:
        return Part.REASONING
    if key.channel.startswith(("tool_calls.", "function_call")):
        return Part.TOOLS
    return {"content": Part.CONTENT, "refusal": Part.REFUSAL}.get(key.channel)


@dataclass(frozen=True)
class Policy:
    """The table from risk to verdict. What follows from it is worked out once, not at each request.

    `categories` overrides `levels` for single categories, which overrides `on_flag` for single levels.
    With `also`, several policies hold at once, and the hardest verdict of them counts.
    """

    name: str = "default"
    mode: Mode = Mode.LOOSE
    on_flag: Action = Action.BLOCK
    debounce: int = 2  # tokens in a row that make a flagged run
    rule: DebounceRule = DebounceRule.SAME_LEVEL
    categories: Mapping[Category, Action] = field(default_factory=dict)
    levels: Mapping[RiskLevel, Action] = field(default_factory=dict)  # a level that is named counts in either mode
    release: ReleaseMode = ReleaseMode.HOLD
    window: int = 0  # characters; only with ReleaseMode.WINDOW
    whole_calls: bool = True  # a tool call leaves when all of it is judged, or not at all
    parts: Mapping[Part, "Policy"] = field(default_factory=dict)
    also: tuple["Policy", ...] = ()

    def action(self, category: Category, level: RiskLevel = RiskLevel.UNSAFE) -> Action:
        own = self._own_action(category, level)
        if not self.also:
            return own
        return max([own, *(other.action(category, level) for other in self.also)], key=STRENGTH.index)

    def _own_action(self, category: Category, level: RiskLevel) -> Action:
        by_level = self.levels.get(level)
        if level is RiskLevel.SAFE or by_level is Action.ALLOW or (by_level is None and not COUNTS[self.mode][level]):
            return Action.ALLOW
        found = self.categories.get(category, by_level or self.on_flag)
        # A monitored route must not change by a byte, whatever a category or a level asks for.
        return Action.MONITOR if self.on_flag is Action.MONITOR and found is not Action.ALLOW else found

    def counts(self, risk: Risk) -> bool:
        return self.action(risk.category, risk.level) is not Action.ALLOW

    def judge_prompt(self, risk: Risk) -> Verdict:
        """A prompt has one verdict, so there is nothing to debounce."""
        return VERDICT_OF[self.action(risk.category, risk.level)]

    @cached_property
    def can_block(self) -> bool:
        return Action.BLOCK in {self.action(category, level) for category in Category for level in RiskLevel}

    @cached_property
    def holds(self) -> bool:
        """Does anything wait for a verdict? A monitored answer never does."""
        return self.on_flag is not Action.MONITOR or any(other.holds for other in self.also)

    @cached_property
    def is_watching(self) -> bool:
        """Does nothing anywhere wait for a verdict?"""
        holds = any(one.holds for one in (self, *self.parts.values()))
        return not holds and all(other.is_watching for other in self.also)

    @cached_property
    def keeps_calls_whole(self) -> bool:
        """Does a tool call wait for its own end? Only one that may be cut has a reason to."""
        return self.of(Part.TOOLS).can_block and any(one.whole_calls for one in (self, *self.also))

    @cached_property
    def longest_run(self) -> int:
        """Tokens that may have to be taken back at once."""
        return max([self.debounce, *(other.longest_run for other in self.also)])

    @cached_property
    def ahead(self) -> int:
        """Characters that may leave before their verdicts."""
        own = self.window if self.release is ReleaseMode.WINDOW else 0
        return min([own, *(other.ahead for other in self.also)])

    @cached_property
    def may_run_ahead(self) -> bool:
        """May some text leave before its verdict?"""
        inner = (*self.parts.values(), *self.also)
        return self.release is ReleaseMode.WINDOW or not self.holds or any(one.may_run_ahead for one in inner)

    def of(self, part: Part | None) -> "Policy":
        """The policy of one part; what has none of its own is under the whole one."""
        if part is None or not (self.parts or self.also):
            return self
        if part not in self._by_part:
            found = self.parts.get(part, replace(self, also=()))
            self._by_part[part] = replace(found, also=tuple(other.of(part) for other in self.also))
        return self._by_part[part]

    @cached_property
    def _by_part(self) -> dict[Part, "Policy"]:
        return {}

    def joined(self, other: "Policy") -> "Policy":
        """Both at once: nothing passes that either would hold back."""
        return replace(self, name=f"{self.name}+{other.name}", also=(*self.also, replace(other, also=()), *other.also))

    def watching(self) -> "Policy":
        """The same policy with nothing blocked, and nothing held for a verdict."""
        parts = {part: policy.watching() for part, policy in self.parts.items()}
        return replace(self, on_flag=Action.MONITOR, parts=parts, also=tuple(one.watching() for one in self.also))

    def tightened(self, at_least: Action) -> "Policy":
        """The same policy with every action raised to `at_least`; none is ever lowered."""

        def harder(action: Action) -> Action:
            return max(action, at_least, key=STRENGTH.index)

        return replace(
            self,
            on_flag=harder(self.on_flag),
            categories={category: harder(action) for category, action in self.categories.items()},
            levels={level: harder(action) for level, action in self.levels.items()},
            parts={part: policy.tightened(at_least) for part, policy in self.parts.items()},
            also=tuple(other.tightened(at_least) for other in self.also),
        )
