"""The verdicts of a text's tokens: the debounce against a slow reading of the published rule, alone and joined."""

from functools import reduce
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.judge import Judge, judge_of
from proxy.policy import Action, DebounceRule, Mode, Policy, Verdict
from proxy.risk import Category, Risk, RiskLevel
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


policies = st.builds(
    Policy,
    mode=st.sampled_from(Mode),
    on_flag=st.sampled_from([Action.BLOCK, Action.ANNOTATE, Action.MONITOR]),
    debounce=st.integers(1, 4),
    rule=st.sampled_from(DebounceRule),
    categories=st.dictionaries(st.sampled_from([Category.PII, Category.VIOLENT]), st.sampled_from(Action), max_size=2),
    levels=st.dictionaries(st.sampled_from([RiskLevel.CONTROVERSIAL, RiskLevel.UNSAFE]), st.sampled_from(Action)),
)


risks = st.builds(risk, st.sampled_from(RiskLevel), st.sampled_from([Category.PII, Category.VIOLENT]))


def delivered(policy: Policy, text: list[Risk]) -> tuple[int, bool]:
    """(tokens that leave, was it cut) of a text that ends there."""
    judge = judge_of(policy)
    for number, one in enumerate(text):
        if judge.judge(one) is Verdict.BLOCK:
            return number + 1 - judge.run, True
    return len(text), False


@given(st.lists(policies, min_size=2, max_size=4), st.lists(risks, max_size=12))
def test_of_joined_policies_nothing_passes_that_one_of_them_holds_back(each: list[Policy], text: list[Risk]) -> None:
    alone = [delivered(policy, text) for policy in each]
    joint = reduce(Policy.joined, each)
    sent, is_cut = delivered(joint, text)
    assert is_cut == any(cut for _, cut in alone)
    assert sent <= min(count for count, _ in alone)
    for one in text:
        assert joint.counts(one) == any(policy.counts(one) for policy in each)
        assert (joint.judge_prompt(one) is Verdict.BLOCK) == any(p.judge_prompt(one) is Verdict.BLOCK for p in each)


@given(policies, policies, st.lists(risks, max_size=12), st.integers(0, 12))
def test_a_copied_judge_goes_on_alone(one: Policy, other: Policy, text: list[Risk], at: int) -> None:
    judge = judge_of(one.joined(other))
    for risk_ in text[:at]:
        judge.judge(risk_)
    twin = judge.copy()
    assert [judge.judge(one) for one in text[at:]] == [twin.judge(one) for one in text[at:]]
    assert (judge.run, judge.undecided, judge.is_flagged) == (twin.run, twin.undecided, twin.is_flagged)
