"""Which records are wanted, as people say it and as SQL."""

import re
from dataclasses import dataclass
from datetime import datetime

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True, slots=True)
class Filter:
    """Every field that is set must fit. `model` may hold * for any characters; case does not count in it."""

    since: float | None = None  # seconds since 1970
    until: float | None = None
    outcome: str | None = None
    category: str | None = None
    key: str | None = None
    model: str | None = None

    def where(self) -> tuple[str, list[object]]:
        """A condition with a ? for each parameter, and these."""
        found: list[tuple[str, object]] = [
            ("started >= ?", self.since),
            ("started < ?", self.until),
            ("outcome = ?", self.outcome),
            ("category = ?", self.category),
            ("key = ?", self.key),
            (r"LOWER(model) LIKE ? ESCAPE '\'", None if self.model is None else _pattern(self.model)),
        ]
        given = [(condition, value) for condition, value in found if value is not None]
        return " AND ".join(["TRUE", *(one for one, _ in given)]), [value for _, value in given]


def _pattern(model: str) -> str:
    return re.sub(r"([%_\\])", r"\\\1", model.lower()).replace("*", "%")


def moment(text: str, now: float) -> float:
    """`90m`, `24h`, `7d` before now, or a date or time of ISO 8601, local where it has no zone. Raises ValueError."""
    if found := re.fullmatch(r"(\d{1,6})([smhdw])", text):
        return now - int(found[1]) * UNIT_SECONDS[found[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as exc:
        raise ValueError("must be 90m, 24h, 7d, or a date such as 2026-01-31 or 2026-01-31T12:00") from exc
