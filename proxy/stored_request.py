"""A request for an answer that the upstream has kept: GET /v1/responses/{id}."""

from collections import Counter
from collections.abc import Sequence

from proxy.errors import ApiError
from proxy.request_fields import ModeratedRequest

QUERY = ("stream", "include", "include[]", "include_obfuscation", "starting_after")
RESUMING = (
    "A stream of judged text is numbered anew, so it cannot be resumed in the middle; leave out 'starting_after'."
)
# What was asked lies with the upstream: the answer is judged without it, and the record says so.
UNSEEN = ("the conversation before the answer",)


def read_stored_request(query: Sequence[tuple[str, str]]) -> ModeratedRequest:
    """Raises ApiError for a query that two readers could understand differently, or that cannot be met."""
    counts = Counter(name for name, _ in query)
    values = dict(query)
    for name in counts:
        if name not in QUERY or (counts[name] > 1 and not name.startswith("include")):
            raise ApiError(400, "Unknown or repeated parameter in the query.", code="unknown_parameter")
    if "starting_after" in values:
        raise ApiError(400, RESUMING, param="starting_after", code="unsupported_value")
    if values.get("stream", "false") not in ("true", "false"):
        raise ApiError(400, "Invalid 'stream': expected true or false.", param="stream", code="invalid_value")
    is_stream = values.get("stream") == "true"
    return ModeratedRequest("-", [{"role": "user", "content": ""}], {}, stream=is_stream, unscanned=UNSEEN)
