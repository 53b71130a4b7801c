"""What is wanted of the records, as a page's query says it."""

import time
from collections.abc import Iterable

from proxy.records import RequestOutcome
from proxy.request_body import BadRequest
from proxy.store.filters import Filter, moment

MOST_RECORDS = 500
FIELDS = ("since", "until", "outcome", "category", "key", "model")
# Longer than any name in a record.
MAX_VALUE_CHARACTERS = 256


def read_search(query: Iterable[tuple[str, str]]) -> tuple[Filter, int]:
    """The filter and how many records at most. An empty field is no condition. Raises BadRequest."""
    given: dict[str, str] = {}
    for name, text in query:
        if name not in (*FIELDS, "limit"):
            raise BadRequest(400, f"A search takes {', '.join(FIELDS)} and limit.", code="invalid_value")
        if name in given or len(text) > MAX_VALUE_CHARACTERS or "\x00" in text:
            raise BadRequest(400, f"Invalid '{name}': one short text is expected.", name, "invalid_value")
        given[name] = text.strip()
    wanted = {name: text for name, text in given.items() if text}
    limit = _limit(wanted.pop("limit", "50"))
    if (outcome := wanted.get("outcome")) is not None and outcome not in list(RequestOutcome):
        raise BadRequest(400, f"Invalid 'outcome': one of {', '.join(RequestOutcome)}.", "outcome", "invalid_value")
    since, until = (_moment(name, wanted.get(name)) for name in ("since", "until"))
    return Filter(since, until, *(wanted.get(name) for name in FIELDS[2:])), limit


def _limit(text: str) -> int:
    if not text.isdecimal() or len(text) > 3 or not 1 <= int(text) <= MOST_RECORDS:
        raise BadRequest(400, f"Invalid 'limit': 1 to {MOST_RECORDS}.", "limit", "invalid_value")
    return int(text)


def _moment(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text) if text.replace(".", "", 1).isdecimal() else moment(text, time.time())
    except ValueError as exc:
        raise BadRequest(400, f"Invalid '{name}': it {exc}.", name, "invalid_value") from exc
