"""Where text lies in a response of /v1/responses: its items, their parts, and the events that tell of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from adapters.base import Kind

CONTENT, SUMMARY = "content", "summary"


class Place(NamedTuple):
    """A text: of an item by the upstream's `output_index`; `list` is "content", "summary", or "" for a call's own."""

    item: int
    list: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class PartType:
    """A part of a list of an item: the field of its text, the channel that it belongs to, its events."""

    list: str
    field: str
    channel: str
    kind: Kind
    event: str  # of its text: response.<event>.delta and .done
    part_event: str  # of the part: response.<part_event>.added and .done
    index_name: str

    def blank(self, name: str) -> dict[str, Any]:
        more: dict[str, Any] = {"annotations": [], "logprobs": []} if name == "output_text" else {}
        return {"type": name, self.field: "", **more}


PARTS: Mapping[str, PartType] = {
    "output_text": PartType(CONTENT, "text", "content", Kind.CONTENT, "output_text", "content_part", "content_index"),
    "refusal": PartType(CONTENT, "refusal", "refusal", Kind.CONTENT, "refusal", "content_part", "content_index"),
    "reasoning_text": PartType(
        CONTENT, "text", "reasoning", Kind.REASONING, "reasoning_text", "content_part", "content_index"
    ),
    "summary_text": PartType(
        SUMMARY,
        "text",
        "reasoning_summary",
        Kind.REASONING,
        "reasoning_summary_text",
        "reasoning_summary_part",
        "summary_index",
    ),
}
PART_OF_EVENT: Mapping[str, str] = {part.event: name for name, part in PARTS.items()}


@dataclass(frozen=True, slots=True)
class CallType:
    """A call of the client's own tools: where its text is, and the event that tells of it."""

    field: str
    kind: Kind
    event: str
    id_prefix: str


CALLS: Mapping[str, CallType] = {
    "function_call": CallType("arguments", Kind.ARGUMENTS, "function_call_arguments", "fc"),
    "custom_tool_call": CallType("input", Kind.CONTENT, "custom_tool_call_input", "ctc"),
}
CALL_OF_EVENT: Mapping[str, str] = {call.event: name for name, call in CALLS.items()}

# Items whose parts are texts. All others are judged whole, once they are complete.
LISTS: Mapping[str, tuple[str, ...]] = {"message": (CONTENT,), "reasoning": (SUMMARY, CONTENT)}
ID_PREFIXES: Mapping[str, str] = {"message": "msg", "reasoning": "rs"}
