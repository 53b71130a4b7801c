"""Verdicts of the tokens of one text, debounced over neighbours. What a risk leads to is `proxy.policy`'s.

Apart from it so that it can be compiled: it is asked for each token.
"""

from dataclasses import replace
from typing import Final

from proxy.policy import HARDNESS, VERDICT_OF, Action, DebounceRule, Policy, Verdict
from proxy.risk import Risk, RiskLevel

_SAFE: Final = RiskLevel.SAFE


def judge_of(policy: Policy) -> "Judge | JointJudge":
    return JointJudge(policy) if policy.also else Judge(policy)


class Judge:
    """Debounces the risks of one text.

    After each `judge`, the last `undecided` tokens wait; all before them are decided. On BLOCK
    the last `run` tokens, this one included, are the flagged run.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._level = _SAFE
        self.run = 0
        self.undecided = 0
        self.is_flagged = False

    def judge(self, risk: Risk) -> Verdict:
        policy = self._policy
        # Most tokens are safe, which needs no table.
        action = Action.ALLOW if risk.level is _SAFE else policy.action(risk.category, risk.level)
        if action is Action.ALLOW:
            self.run = self.undecided = 0
            self._level = _SAFE
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
        return VERDICT_OF[action]

    def copy(self) -> "Judge":
        twin = Judge(self._policy)
        twin._level, twin.run = self._level, self.run
        twin.undecided, twin.is_flagged = self.undecided, self.is_flagged
        return twin


class JointJudge:
    """Several policies over one text: a token waits while any of them waits, and is blocked where any blocks."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._judges = [Judge(one) for one in (replace(policy, also=()), *policy.also)]
        self.run = 0
        self.undecided = 0

    @property
    def is_flagged(self) -> bool:
        return any(judge.is_flagged for judge in self._judges)

    def judge(self, risk: Risk) -> Verdict:
        verdicts = [judge.judge(risk) for judge in self._judges]
        self.undecided = max(judge.undecided for judge in self._judges)
        hardest = max(verdicts, key=HARDNESS.index)
        runs = [judge.run for judge, verdict in zip(self._judges, verdicts, strict=True) if verdict is hardest]
        self.run = max(*runs, self.undecided)
        return hardest

    def copy(self) -> "JointJudge":
        twin = JointJudge(self._policy)
        twin._judges = [judge.copy() for judge in self._judges]
        twin.run, twin.undecided = self.run, self.undecided
        return twin
