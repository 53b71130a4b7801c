import math

import pytest

from proxy.guard.protocol import GuardFault
from proxy.guard.rows import CATEGORIES, read_rows, row_bytes, rows_of_logits, winner_row, write_rows
from proxy.risk import RISK_LEVELS, Category, RiskLevel, Role

ROW = [0.125, 0.625, 0.25, 0.0, 0.0, 0.0, 0.25, 0.5, 0.0, 0.25, 0.0]


def test_a_row_is_a_risk_with_its_most_probable_classes() -> None:
    (risk,) = read_rows(write_rows([ROW], Role.ASSISTANT), 1, Role.ASSISTANT)
    assert (risk.level, risk.probability) == (RiskLevel.UNSAFE, 0.625)
    assert (risk.category, risk.category_probability) == (Category.PII, 0.5)
    assert [*risk.levels, *risk.categories] == ROW


def test_rows_of_a_prompt_are_one_category_wider() -> None:
    assert row_bytes(Role.USER) == row_bytes(Role.ASSISTANT) + 4
    (risk,) = read_rows(write_rows([[1.0, 0.0, 0.0, *[0.0] * 8, 1.0]], Role.USER), 1, Role.USER)
    assert risk.category is Category.JAILBREAK


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_rows_is_a_fault(count: int) -> None:
    with pytest.raises(GuardFault, match=f"1 verdicts for {count} tokens"):
        read_rows(write_rows([ROW], Role.ASSISTANT), count, Role.ASSISTANT)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 2.0, -1.0])
@pytest.mark.parametrize("at", [0, 2, 3, 10])
def test_what_is_no_distribution_is_a_fault(wrong: float, at: int) -> None:
    row = ROW.copy()
    row[at] = wrong
    with pytest.raises(GuardFault, match="do not sum to one"):
        read_rows(write_rows([row], Role.ASSISTANT), 1, Role.ASSISTANT)


@pytest.mark.parametrize("probability", [0.12, 0.33, 0.5, 0.99, 1.0])
def test_a_row_of_which_only_the_winners_are_known_keeps_them(probability: float) -> None:
    for role, categories in CATEGORIES.items():
        for level, category in ((0, 0), (2, 7)):
            (risk,) = read_rows(
                write_rows([winner_row(level, probability, category, probability, role)], role), 1, role
            )
            assert (risk.level, risk.category) == (RISK_LEVELS[level], categories[category])
            assert risk.probability == pytest.approx(max(probability, 1.01 / 3), abs=1e-6)


def test_logits_become_the_distributions_that_they_stand_for() -> None:
    logits = [math.log(one) if one else -50.0 for one in ROW]
    (found,) = read_rows(rows_of_logits([[one + 900.0 for one in logits]], Role.ASSISTANT), 1, Role.ASSISTANT)
    assert [*found.levels, *found.categories] == pytest.approx(ROW, abs=1e-6)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [1, 4])
def test_logits_that_are_not_finite_are_a_fault(wrong: float, at: int) -> None:
    with pytest.raises(GuardFault, match="not finite"):
        rows_of_logits([[*ROW[:at], wrong, *ROW[at + 1 :]]], Role.ASSISTANT)
