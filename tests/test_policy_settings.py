"""What `[policy]` may say."""

import pytest
from pydantic import ValidationError

from proxy.policy_settings import PolicySettings
from proxy.risk import Category


@pytest.mark.parametrize("name", ["Sexual Content", "sexual content", "sexual_content", "SEXUAL-CONTENT"])
def test_a_category_goes_by_any_spelling(name: str) -> None:
    policy = PolicySettings.model_validate({"categories": {name: "allow"}})
    assert policy.categories == {Category.SEXUAL_CONTENT: "allow"}


def test_a_category_named_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match='names the category "PII" twice'):
        PolicySettings.model_validate({"categories": {"PII": "allow", "pii": "block"}})


def test_categories_that_are_no_table_are_refused() -> None:
    with pytest.raises(ValidationError, match="dictionary"):
        PolicySettings.model_validate({"categories": "PII"})


@pytest.mark.parametrize(
    ("release", "window", "is_good"), [("hold", 0, 1), ("window", 9, 1), ("hold", 9, 0), ("window", 0, 0)]
)
def test_a_window_and_its_release_mode_go_together(release: str, window: int, is_good: bool) -> None:
    if is_good:
        assert PolicySettings.model_validate({"release": release, "window": window}).window == window
    else:
        with pytest.raises(ValidationError, match="window"):
            PolicySettings.model_validate({"release": release, "window": window})
