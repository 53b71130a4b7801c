"""Risk -> verdict: the tables, and what joined, tightened and watching policies come to."""

from dataclasses import replace

import pytest

from adapters.base import Key, Kind
from proxy.policy import Action, Mode, Part, Policy, ReleaseMode, Verdict, part_of
from proxy.risk import Category, RiskLevel
from tests.fakes import risk


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
