"""A risk is a value, compiled or not."""

import pytest

from proxy.risk import RESPONSE_CATEGORIES, Category, Risk, RiskLevel
from tests.fakes import risk


def test_a_risk_equals_another_of_the_same_numbers_and_nothing_else() -> None:
    one, same, other = risk(RiskLevel.UNSAFE), risk(RiskLevel.UNSAFE), risk(RiskLevel.UNSAFE, Category.PII)
    assert one == same
    assert len({one, same, other}) == 2
    assert one != (one.level, one.category, one.probability, one.category_probability, one.levels, one.categories)


@pytest.mark.parametrize("changed", ["probability", "category_probability"])
def test_each_number_of_it_counts(changed: str) -> None:
    fields = {"probability": 0.5, "category_probability": 0.5}
    one, other = (
        Risk(RiskLevel.SAFE, Category.PII, **numbers, levels=(0.5, 0.3, 0.2), categories=(0.125,) * 8)
        for numbers in (fields, fields | {changed: 0.25})
    )
    assert one != other


def test_it_tells_what_it_is() -> None:
    assert repr(risk(RiskLevel.SAFE)).startswith("Risk(<RiskLevel.SAFE: 'Safe'>, <Category.VIOLENT: 'Violent'>, 0.9")
    assert len(RESPONSE_CATEGORIES) == len(risk(RiskLevel.SAFE).categories)
