"""Risk -> verdict: the tables, and the debounce against a slow reading of the published rule."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy import Action, DebounceRule, Judge, Mode, Policy, Verdict
from proxy.risk import Category, RiskLevel
from tests.fakes import LEVEL_OF, risk


def verdicts(policy: Policy, labels: str) -> str:
    """R, W or B for each token, up to the first B."""
    judge = Judge(policy)
    found = ""
    for label in labels:
        found += judge.judge(risk(LEVEL_OF[label])).name[0]
        if found[-1] == "B":
            break
    return found


def flagged_at(labels: str, mode: Mode, rule: DebounceRule, debounce: int) -> int | None:
    """Slow and obvious: the first token that ends `debounce` tokens in a row that make a flag."""
    runs = {
        DebounceRule.SAME_LEVEL: ["U", "C"] if mode is Mode.STRICT else ["U"],
        DebounceRule.ANY_LEVEL: ["UC"] if mode is Mode.STRICT else ["U"],
    }[rule]
    for end in range(debounce, len(labels) + 1):
        window = labels[end - debounce : end]
        if any(all(label in levels for label in window) for levels in runs):
            return end - 1
    return None


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("rule", DebounceRule)
@pytest.mark.parametrize("debounce", [1, 2, 3])
def test_every_label_string_is_flagged_where_the_slow_rule_says(mode: Mode, rule: DebounceRule, debounce: int) -> None:
    policy = Policy(mode=mode, rule=rule, debounce=debounce)
    for labels in map("".join, product("SCU", repeat=6)):
        found = verdicts(policy, labels)
        assert (len(found) - 1 if found.endswith("B") else None) == flagged_at(labels, mode, rule, debounce)


@given(st.text("SCU", max_size=40))
def test_a_token_waits_exactly_while_the_next_one_could_make_it_flagged(labels: str) -> None:
    found = verdicts(Policy(), labels)
    for i, verdict in enumerate(found):
        if verdict == "W":
            assert labels[i] == "U"
            assert labels[i - 1 : i] != "U"


def test_an_allowed_category_is_not_flagged_and_ends_a_run() -> None:
    policy = Policy(categories={Category.POLITICAL: Action.ALLOW})
    judge = Judge(policy)
    assert judge.judge(risk(RiskLevel.UNSAFE)) is Verdict.WAIT
    assert judge.judge(risk(RiskLevel.UNSAFE, Category.POLITICAL)) is Verdict.RELEASE
    assert judge.judge(risk(RiskLevel.UNSAFE)) is Verdict.WAIT
    assert not judge.is_flagged


def test_the_category_of_the_token_that_completes_the_run_decides() -> None:
    policy = Policy(categories={Category.POLITICAL: Action.ANNOTATE})
    judge = Judge(policy)
    judge.judge(risk(RiskLevel.UNSAFE, Category.POLITICAL))
    assert judge.judge(risk(RiskLevel.UNSAFE, Category.POLITICAL)) is Verdict.RELEASE
    assert judge.is_flagged
    assert judge.judge(risk(RiskLevel.UNSAFE, Category.VIOLENT)) is Verdict.BLOCK


@pytest.mark.parametrize("on_flag", [Action.ANNOTATE, Action.MONITOR])
def test_nothing_waits_where_nothing_can_be_blocked(on_flag: Action) -> None:
    assert verdicts(Policy(on_flag=on_flag), "SUUUS") == "RRRRR"


def test_a_monitored_route_never_blocks_whatever_a_category_asks() -> None:
    policy = Policy(on_flag=Action.MONITOR, categories={Category.VIOLENT: Action.BLOCK})
    assert not policy.can_block
    assert not policy.holds


@pytest.mark.parametrize(
    ("mode", "level", "verdict"),
    [
        (Mode.LOOSE, RiskLevel.SAFE, Verdict.RELEASE),
        (Mode.LOOSE, RiskLevel.CONTROVERSIAL, Verdict.RELEASE),
        (Mode.LOOSE, RiskLevel.UNSAFE, Verdict.BLOCK),
        (Mode.STRICT, RiskLevel.SAFE, Verdict.RELEASE),
        (Mode.STRICT, RiskLevel.CONTROVERSIAL, Verdict.BLOCK),
        (Mode.STRICT, RiskLevel.UNSAFE, Verdict.BLOCK),
    ],
)
def test_a_prompt_is_judged_by_its_one_risk(mode: Mode, level: RiskLevel, verdict: Verdict) -> None:
    assert Policy(mode=mode).judge_prompt(risk(level)) is verdict


@pytest.mark.parametrize("at_least", Action)
@pytest.mark.parametrize("on_flag", [Action.BLOCK, Action.ANNOTATE, Action.MONITOR])
def test_a_client_can_only_tighten(on_flag: Action, at_least: Action) -> None:
    policy = Policy(on_flag=on_flag, categories={Category.PII: Action.ALLOW, Category.VIOLENT: Action.BLOCK})
    order = [Action.ALLOW, Action.MONITOR, Action.ANNOTATE, Action.BLOCK]
    tight = policy.tightened(at_least)
    for category in Category:
        assert order.index(tight.action(category)) >= order.index(policy.action(category))
