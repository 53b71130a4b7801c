"""Rows: what the guard's heads say of tokens, as plain bytes. No torch here.

A row is float32 in the machine's byte order: the probabilities of the 3 risk levels, then those of the
categories (8 for an assistant token, 9 for a user token), in the order of `risk`.
"""

import math
from collections.abc import Sequence
from struct import Struct

from proxy.guard.protocol import GuardFault
from proxy.risk import PROMPT_CATEGORIES, RESPONSE_CATEGORIES, RISK_LEVELS, Category, Risk, Role

LEVELS = len(RISK_LEVELS)
CATEGORIES: dict[Role, tuple[Category, ...]] = {Role.USER: PROMPT_CATEGORIES, Role.ASSISTANT: RESPONSE_CATEGORIES}
FORMATS = {role: Struct(f"={LEVELS + len(names)}f") for role, names in CATEGORIES.items()}
# What rounding leaves of two distributions that each sum to one.
SUMS = (1.98, 2.02)


def row_bytes(role: Role) -> int:
    return FORMATS[role].size


def write_rows(rows: Sequence[Sequence[float]], role: Role) -> bytes:
    """The reverse of `read_rows`, for guards that have lists."""
    return b"".join(FORMATS[role].pack(*row) for row in rows)


def rows_of_logits(logits: Sequence[Sequence[float]], role: Role) -> bytes:
    """Rows out of what the heads say before the softmax. Raises GuardFault for what is not finite."""
    return write_rows([[*_softmax(one[:LEVELS]), *_softmax(one[LEVELS:])] for one in logits], role)


def winner_row(level: int, probability: float, category: int, category_probability: float, role: Role) -> list[float]:
    """A row of which only the winners are known, by class number; the other classes share what is left, evenly."""
    return [
        *_shared(LEVELS, level, probability),
        *_shared(len(CATEGORIES[role]), category, category_probability),
    ]


def read_rows(rows: bytes, count: int, role: Role) -> list[Risk]:
    """`count` risks. Raises GuardFault for another number of rows, and for what is no pair of distributions."""
    fields = FORMATS[role]
    if len(rows) != count * fields.size:
        raise GuardFault(f"{len(rows) / fields.size:g} verdicts for {count} tokens")
    names = CATEGORIES[role]
    return [_risk(row, names) for row in fields.iter_unpack(rows)]


def _shared(count: int, winner: int, probability: float) -> list[float]:
    # Rounded to two digits a winner may have less than its equal share, and must not lose by that.
    most = max(probability, 1.01 / count)
    return [most if one == winner else (1.0 - most) / (count - 1) for one in range(count)]


def _softmax(logits: Sequence[float]) -> list[float]:
    if not all(map(math.isfinite, logits)):
        raise GuardFault("the guard's numbers are not finite")
    highest = max(logits)
    powers = [math.exp(one - highest) for one in logits]
    total = sum(powers)
    return [power / total for power in powers]


def _risk(row: tuple[float, ...], names: tuple[Category, ...]) -> Risk:
    # A NaN is unequal to itself, so it shows in the sum wherever it is.
    if not SUMS[0] < sum(row) < SUMS[1]:
        raise GuardFault("the guard's probabilities do not sum to one")
    levels, categories = row[:LEVELS], row[LEVELS:]
    probability, category_probability = max(levels), max(categories)
    return Risk(
        RISK_LEVELS[levels.index(probability)],
        names[categories.index(category_probability)],
        probability,
        category_probability,
        levels,
        categories,
    )
