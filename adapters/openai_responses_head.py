"""The fields of a response around its output: numbers and names checked, the request's own words repeated."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

from adapters.base import Options
from adapters.metadata import ID, MODEL, WORD, is_number, leftovers, matches, read_counts

# What the client itself said is told back in its own words, never in the upstream's.
ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "metadata": {},
    "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "user": None,
    "previous_response_id": None,
}
NUMBERS = ("temperature", "top_p", "max_output_tokens", "max_tool_calls", "top_logprobs", "completed_at")
FLAGS = ("parallel_tool_calls", "store", "background")
WORDS = ("truncation", "service_tier")
# Told by us, or of no use once the answer is rebuilt.
TOLD = frozenset({"id", "object", "created_at", "model", "status", "output", "usage", "error", "incomplete_details"})
IGNORED = frozenset(
    {
        "moderation",
        "output_text",
        "conversation",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
    }
)
KNOWN = TOLD | IGNORED | ECHOED.keys() | {*NUMBERS, *FLAGS, *WORDS}


class HeadReader:
    """Keeps one head for a response; the first valid id holds for all of it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._head: dict[str, Any] = {}
        self.dropped = 0

    def read(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """The fields in the order in which they are written, without status, output and usage."""
        begun = self._head or blank(self._options)
        found = {name: response[name] for name in NUMBERS if name in response and _is_number_or_none(response[name])}
        found |= {name: response[name] for name in FLAGS if isinstance(response.get(name), bool)}
        found |= {name: response[name] for name in WORDS if matches(response.get(name), WORD)}
        if matches(response.get("model"), MODEL):
            found["model"] = response["model"]
        if not self._head:
            found |= {"id": response["id"]} if matches(response.get("id"), ID) else {}
            found |= {"created_at": response["created_at"]} if is_number(response.get("created_at")) else {}
            self.dropped += leftovers(response, KNOWN)
            checked = ("id", "model", "created_at", *NUMBERS, *FLAGS, *WORDS)
            self.dropped += sum(1 for name in checked if response.get(name) and name not in found)
        self._head = begun | found
        return dict(self._head)

    def usage(self, usage: Any) -> dict[str, Any] | None:
        if not isinstance(usage, dict):
            self.dropped += bool(usage)
            return None
        counts, dropped = read_counts(usage)
        self.dropped += dropped
        return counts


def _is_number_or_none(value: Any) -> bool:
    return value is None or is_number(value)


def blank(options: Options) -> dict[str, Any]:
    """The head of a response of which the upstream has said nothing yet."""
    return {
        "id": f"resp_{secrets.token_hex(16)}",
        "object": "response",
        "created_at": int(time.time()),
        "model": options.model,
        "parallel_tool_calls": True,
        **{name: options.echo.get(name, default) for name, default in ECHOED.items()},
    }
