"""What every section's values are held to."""

import re
from typing import Annotated, Any

import pytest
from pydantic import ValidationError

from proxy.setting_types import Bytes, Count, Line, Seconds, Section, ShortName, Some, scalar, spelled


class Example(Section):
    count: Count = 1
    bytes: Bytes = 1024
    seconds: Seconds = 1.0
    line: Line = "x"
    some: Some[Line] = ("x",)
    name: ShortName = "x"
    word: Annotated[str, spelled(r"[a-z]+", "must be small letters")] = "x"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("count", True, "must be a number, not true or false"),
        ("bytes", 1023, "greater than or equal to 1024"),
        ("bytes", (1 << 30) + 1, "less than or equal to"),
        ("seconds", 0, "greater than 0"),
        ("seconds", float("inf"), "less than or equal to 86400"),
        ("line", "", "must be one line of text"),
        ("line", "a\nb", "must be one line of text"),
        ("line", "x" * 1025, "must be one line of text"),
        ("word", "A", "must be small letters"),
        ("some", [], "must name at least one"),
        ("some", [""], "must be one line of text"),
        ("name", "a b", "must be 1 to 64 letters"),
        ("other", 1, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_being_repeated(key: str, value: Any, reason: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason)) as caught:
        Example.model_validate({key: value})
    assert "input_value" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("false", False),
        ("2", 2),
        ("-1", -1),
        ("0.5", 0.5),
        ("0", 0),
        ("007", "007"),
        ("1e5", "1e5"),
        ("fp8", "fp8"),
        ("True", "True"),
        (3, 3),
        (None, None),
    ],
)
def test_a_variable_is_read_as_what_it_looks_like(text: object, expected: object) -> None:
    found = scalar(text)
    assert (found, type(found)) == (expected, type(expected))
