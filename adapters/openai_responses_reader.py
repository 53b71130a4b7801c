"""One event of a Responses stream -> pieces. What an event repeats is read once, and judged where it is more."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from adapters.base import End, Event, Finish, Opaque, Options, Piece
from adapters.errors import AdapterError, UpstreamReportedError
from adapters.openai_responses_head import HeadReader
from adapters.openai_responses_items import CALL_OF_EVENT, PART_OF_EVENT, PARTS, Place
from adapters.openai_responses_texts import ItemReader
from adapters.strict_json import read_object

MAX_ITEMS, MAX_PARTS = 256, 1024
# How a response can stand when its answer ends; others are failures.
STATES = frozenset({"completed", "incomplete", "queued", "in_progress"})
REASONS = frozenset({"max_output_tokens", "content_filter"})


class ResponsesReader:
    """Reads the events of one response. Keys are choice 0; `source` of a piece is its place."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._head = HeadReader(options)
        self._items = ItemReader(options)
        self._has_begun = False
        self._is_over = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        return self._dropped + self._head.dropped + self._items.dropped

    def read(self, event: Event) -> list[Piece]:
        said = read_object(event.data)
        return [] if self._is_over else self._take(said)

    def read_body(self, event: Event) -> list[Piece]:
        """A whole response is read as the last event of a stream that repeats all of it."""
        response = read_object(event.data)
        if response.get("object") != "response" and not response.get("error"):
            raise AdapterError("a body is no response")
        return self._take({"type": "response.completed", "response": response})

    def _take(self, said: Mapping[str, Any]) -> list[Piece]:
        kind = said.get("type")
        if not isinstance(kind, str):
            raise AdapterError("an event has no type")
        if kind in ("error", "response.failed") or said.get("error"):
            raise UpstreamReportedError("the upstream reports an error")
        name = kind.removeprefix("response.")
        base, _, verb = name.rpartition(".")
        if read := READERS.get(name):
            return list(read(self, said))
        if base in PART_OF_EVENT and verb in ("delta", "done"):
            part = PART_OF_EVENT[base]
            return list(self._items.read_part_text(part, verb, self._place(part, said), said))
        if base in CALL_OF_EVENT and verb in ("delta", "done"):
            return list(self._items.read_call_text(CALL_OF_EVENT[base], verb, self._index(said), said))
        # Of items that are judged whole: what these events tell is in the item, too.
        self._dropped += not any(base.split(".")[0].startswith(item.type) for item in self._items.items.values())
        return []

    # The response as a whole.

    def _read_begin(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        head = self._head.read(_object(said, "response"))
        if not self._has_begun:
            self._has_begun = True
            yield Opaque(0, {"response": head})

    def _read_end(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        response = _object(said, "response")
        status = response.get("status") or said["type"].removeprefix("response.")
        if response.get("error") or not isinstance(status, str) or status not in STATES:
            raise UpstreamReportedError("the upstream reports that the response failed")
        yield from self._read_begin(said)
        output = response.get("output") or []
        if not isinstance(output, list):
            raise AdapterError("the output of a response is not a list")
        for position, item in enumerate(output):
            yield from self._items.read_whole_item(self._find(item, position), item)
        self._is_over = True
        reason = status if status != "incomplete" else self._reason(response)
        yield Finish(0, reason, {"head": self._head.read(response), "usage": self._head.usage(response.get("usage"))})
        yield End()

    def _reason(self, response: Mapping[str, Any]) -> str:
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        if isinstance(reason, str) and reason in REASONS:
            return reason
        self._dropped += bool(reason)
        return "max_output_tokens"

    # Items.

    def _read_added(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        item, index = _object(said, "item"), self._index(said)
        if index in self._items.items:
            raise AdapterError("an item is there twice")
        yield from self._items.begin_item(index, item)

    def _read_done(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        yield from self._items.read_whole_item(self._index(said), _object(said, "item"))

    # Parts, and texts.

    def _read_part(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        part = _object(said, "part")
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in PARTS:
            self._dropped += 1
            return
        place = self._place(kind, said)
        if said["type"].endswith(".done"):
            yield from self._items.close_part(kind, place, part)
            return
        yield from self._items.begin_part(kind, place)
        yield from self._items.rest(place, PARTS[kind].kind, part.get(PARTS[kind].field), PARTS[kind].channel)

    def _read_annotation(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        place = self._place("output_text", said)
        yield from self._items.begin_part("output_text", place)
        yield from self._items.annotate(said.get("annotation"), place)

    # Numbers.

    def _index(self, said: Mapping[str, Any]) -> int:
        """Where a server gives no number, the id tells, or else the newest item is meant."""
        index = said.get("output_index")
        if index is None:
            item_id = said.get("item_id")
            known = [number for number, item in self._items.items.items() if item.id and item.id == item_id]
            index = known[0] if known else max(self._items.items, default=0)
        if type(index) is not int or not 0 <= index < MAX_ITEMS:
            raise AdapterError("the index of an item is out of bounds")
        return index

    def _place(self, kind: str, said: Mapping[str, Any]) -> Place:
        number = said.get(PARTS[kind].index_name)
        number = 0 if number is None else number
        if type(number) is not int or not 0 <= number < MAX_PARTS:
            raise AdapterError("the index of a part is out of bounds")
        return Place(self._index(said), PARTS[kind].list, number)

    def _find(self, item: Any, position: int) -> int:
        """The index of an item in the list of all: by its id, for some may be missing there."""
        item_id = item.get("id") if isinstance(item, dict) else None
        for index, known in self._items.items.items():
            if known.id and known.id == item_id:
                return index
        taken = self._items.items.get(position)
        if taken is None or not taken.id or not item_id:
            return position
        return max(self._items.items) + 1


READERS: Mapping[str, Callable[[ResponsesReader, Mapping[str, Any]], Iterator[Piece]]] = {
    "created": ResponsesReader._read_begin,
    "queued": ResponsesReader._read_begin,
    "in_progress": ResponsesReader._read_begin,
    "completed": ResponsesReader._read_end,
    "incomplete": ResponsesReader._read_end,
    "output_item.added": ResponsesReader._read_added,
    "output_item.done": ResponsesReader._read_done,
    "content_part.added": ResponsesReader._read_part,
    "content_part.done": ResponsesReader._read_part,
    "reasoning_summary_part.added": ResponsesReader._read_part,
    "reasoning_summary_part.done": ResponsesReader._read_part,
    "output_text.annotation.added": ResponsesReader._read_annotation,
}


def _object(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    if not isinstance(value, dict):
        raise AdapterError(f"the {name} of an event is not an object")
    return value
