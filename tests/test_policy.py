"""Risk -> verdict: the tables, and the debounce against a slow reading of the published rule."""

from dataclasses import replace
from functools import reduce
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Key, Kind
from proxy.policy import Action, DebounceRule, Judge, Mode, Part, Policy, ReleaseMode, Verdict, judge_of, part_of
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


def test_a_level_that_is_named_counts_in_either_mode() -> None:
    policy = Policy(levels={RiskLevel.CONTROVERSIAL: Action.ANNOTATE})
    assert policy.action(Category.PII, RiskLevel.CONTROVERSIAL) is Action.ANNOTATE
    assert policy.action(Category.PII, RiskLevel.UNSAFE) is Action.BLOCK
    strict = Policy(mode=Mode.STRICT, levels={RiskLevel.CONTROVERSIAL: Action.ALLOW})
    assert strict.action(Category.PII, RiskLevel.CONTROVERSIAL) is Action.ALLOW


def test_a_category_goes_before_a_level_that_counts() -> None:
    levels = {RiskLevel.CONTROVERSIAL: Action.ALLOW, RiskLevel.UNSAFE: Action.ANNOTATE}
    policy = Policy(categories={Category.VIOLENT: Action.BLOCK}, levels=levels)
    assert policy.action(Category.VIOLENT) is Action.BLOCK
    assert policy.action(Category.PII) is Action.ANNOTATE
    assert policy.action(Category.VIOLENT, RiskLevel.CONTROVERSIAL) is Action.ALLOW


@pytest.mark.parametrize(
    ("channel", "kind", "part"),
    [
        ("content", Kind.CONTENT, Part.CONTENT),
        ("refusal", Kind.CONTENT, Part.REFUSAL),
        ("reasoning_content", Kind.REASONING, Part.REASONING),
        ("tool_calls.0.function.name", Kind.NAME, Part.TOOLS),
        ("tool_calls.3.input", Kind.CONTENT, Part.TOOLS),
        ("function_call.arguments", Kind.ARGUMENTS, Part.TOOLS),
        ("audio.transcript", Kind.CONTENT, None),
        ("delta.anything", Kind.CONTENT, None),
        ("annotations.1", Kind.OBJECT, None),
    ],
)
def test_each_channel_is_of_one_part_or_of_none(channel: str, kind: Kind, part: Part | None) -> None:
    assert part_of(Key(0, channel), kind) is part


def test_a_part_has_its_own_policy_and_the_rest_the_whole_ones() -> None:
    own = Policy(mode=Mode.STRICT)
    policy = Policy(parts={Part.REASONING: own})
    assert policy.of(Part.REASONING) == own
    assert policy.of(Part.CONTENT) is not own
    assert policy.of(None).of(Part.TOOLS).mode is Mode.LOOSE
    both = policy.joined(Policy("b", parts={Part.REFUSAL: own}))
    assert both.name == "default+b"
    assert [one.mode for one in (both.of(Part.REFUSAL), *both.of(Part.REFUSAL).also)] == [Mode.LOOSE, Mode.STRICT]


def test_only_where_no_part_holds_is_all_merely_watched() -> None:
    watching = Policy(on_flag=Action.MONITOR)
    assert watching.is_watching
    assert not replace(watching, parts={Part.TOOLS: Policy()}).is_watching
    assert not watching.joined(Policy()).is_watching
    assert replace(Policy(), parts={Part.TOOLS: Policy()}).joined(Policy()).watching().is_watching


def test_calls_stay_whole_where_one_may_be_cut() -> None:
    marks = Policy(on_flag=Action.ANNOTATE)
    assert Policy().keeps_calls_whole
    assert not marks.keeps_calls_whole
    assert not replace(Policy(), whole_calls=False).keeps_calls_whole
    assert replace(marks, parts={Part.TOOLS: Policy()}).keeps_calls_whole
    assert not replace(Policy(), parts={Part.TOOLS: marks}).keeps_calls_whole
    assert replace(Policy(), whole_calls=False, also=(Policy(),)).keeps_calls_whole


def test_the_smaller_window_of_two_policies_counts() -> None:
    ten, two = (Policy(release=ReleaseMode.WINDOW, window=size) for size in (10, 2))
    assert (ten.joined(two).ahead, ten.joined(Policy()).ahead, ten.ahead) == (2, 0, 10)


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
