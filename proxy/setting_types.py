"""What values of settings may look like: the types that the sections share."""

import json
import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

MIB = 1 << 20
DAY_SECONDS = 86_400

T = TypeVar("T")


def not_bool(value: object) -> object:
    if isinstance(value, bool):  # pydantic would read true as 1
        raise ValueError("must be a number, not true or false")
    return value


def words(value: object) -> object:
    """A list in a variable: its items, between commas."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def scalar(value: object) -> object:
    """A number or a truth in a variable, which can only hold text."""
    if isinstance(value, str) and re.fullmatch(r"true|false|-?(0|[1-9]\d{0,17})(\.\d{1,18})?", value):
        return json.loads(value)
    return value


def spelled(pattern: str, reason: str) -> AfterValidator:
    """A pattern whose refusal is a sentence for people."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(reason)
        return value

    return AfterValidator(check)


def not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError("must name at least one")
    return values


Count = Annotated[int, BeforeValidator(not_bool)]
Bytes = Annotated[Count, Field(ge=1024, le=1024 * MIB)]
FileBytes = Annotated[Count, Field(ge=1024, le=1024 * 1024 * MIB)]
Seconds = Annotated[float, BeforeValidator(not_bool), Field(gt=0, le=DAY_SECONDS, allow_inf_nan=False)]
Line = Annotated[str, spelled(r"[^\x00-\x1f\x7f]{1,1024}", "must be one line of text, not empty")]
# It may go into a header.
SHORT_NAME = r"[A-Za-z0-9._-]{1,64}"
SHORT_NAMES = "must be 1 to 64 letters, digits, dots, dashes or underscores"
ShortName = Annotated[str, spelled(SHORT_NAME, SHORT_NAMES)]
FileName = Annotated[str, spelled(r"[^/\\\x00-\x1f\x7f]{1,255}", "must be the name of a file, without a folder")]
Sha256 = Annotated[str, spelled(r"[0-9a-f]{64}", "must be 64 digits, 0 to 9 and a to f: what `sha256sum` prints")]
Scalar = Annotated[bool | int | Annotated[float, Field(allow_inf_nan=False)] | Line, BeforeValidator(scalar)]
Some = Annotated[tuple[T, ...], AfterValidator(not_empty)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)
