"""The items of a response as they are told, piece by piece and again as a whole: each text is read once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.base import Delta, Key, Kind, Opaque, Options, Piece
from adapters.errors import AdapterError
from adapters.metadata import ID, WORD, leftovers, matches
from adapters.openai_chat_fields import UNKNOWN_NAME
from adapters.openai_chat_logprobs import pair
from adapters.openai_responses_items import CALLS, LISTS, PARTS, Place
from adapters.structures import is_signature, whole

ITEM_FIELDS = frozenset(
    {"id", "type", "status", "role", "phase", "call_id", "name", "content", "summary", "encrypted_content"}
)
PART_FIELDS = frozenset({"type", "annotations", "logprobs"})


@dataclass(slots=True)
class Item:
    """What has been read of one item."""

    type: str
    id: str = ""
    texts: dict[Place, list[str]] = field(default_factory=dict)  # that have begun, as they came
    closed: set[Place] = field(default_factory=set)
    annotations: dict[Place, int] = field(default_factory=dict)  # how many have been read
    is_done: bool = False


class ItemReader:
    """Reads the items of one response; `items` are those that have begun, by the upstream's index."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._objects = 0
        self.items: dict[int, Item] = {}
        self.dropped = 0

    def begin_item(self, index: int, item: Mapping[str, Any]) -> Iterator[Piece]:
        kind = item.get("type")
        if not matches(kind, UNKNOWN_NAME):
            raise AdapterError("an item has no type")
        self.items[index] = begun = Item(kind, item["id"] if matches(item.get("id"), ID) else "")
        head = {name: item[name] for name in ("id", "call_id") if matches(item.get(name), ID)}
        if kind in LISTS:
            head |= {"phase": item["phase"]} if matches(item.get("phase"), WORD) else {}
            if is_signature(item.get("encrypted_content")) and self._options.allow_unscanned:
                head["encrypted_content"] = item["encrypted_content"]
            yield Opaque(0, {"item": {"type": kind, **head}}, Place(index))
        elif kind in CALLS:
            name = item.get("name")
            if not isinstance(name, str):
                raise AdapterError("a call has no name")
            begun.texts[Place(index)] = []
            extra = {"type": kind, **head}
            key = Key(0, f"tool_calls.{index}.name")
            yield Delta(key, Kind.NAME, name, Place(index), extra) if name else Opaque(0, {"item": extra}, Place(index))

    def read_whole_item(self, index: int, item: Any) -> Iterator[Piece]:
        """An item as it is when it is complete: all of it that has not been read yet."""
        if not isinstance(item, dict):
            raise AdapterError("an item is not an object")
        if index not in self.items:
            yield from self.begin_item(index, item)
        known = self.items[index]
        if known.is_done:
            return
        if item.get("type") != known.type:
            raise AdapterError("an item has changed its type")
        if known.type in CALLS:
            call = CALLS[known.type]
            yield from self.rest(Place(index), call.kind, item.get(call.field))
            self.dropped += leftovers(item, ITEM_FIELDS | {call.field})
        elif known.type in LISTS:
            for name in LISTS[known.type]:
                yield from self._read_list(index, name, item.get(name))
            self.dropped += leftovers(item, ITEM_FIELDS)
            self.dropped += bool(item.get("encrypted_content")) and not self._options.allow_unscanned
        else:
            known.is_done = True
            yield self._whole("items", item, Place(index))
            return
        known.is_done = True
        known.closed.update(known.texts, [Place(index)])
        yield Opaque(0, {"item_done": True}, Place(index))

    def _read_list(self, index: int, name: str, parts: Any) -> Iterator[Piece]:
        if not isinstance(parts, list | None):
            raise AdapterError("the parts of an item are not a list")
        for number, part in enumerate(parts or []):
            kind = part.get("type") if isinstance(part, dict) else None
            if not isinstance(kind, str) or kind not in PARTS or PARTS[kind].list != name:
                self.dropped += 1
                continue
            yield from self.close_part(kind, Place(index, name, number), part)

    def begin_part(self, kind: str, place: Place) -> Iterator[Piece]:
        """Servers that leave out the events around a text are understood all the same."""
        if place.item not in self.items:
            owner = "message" if kind in ("output_text", "refusal") else "reasoning"
            yield from self.begin_item(place.item, {"type": owner})
        item = self.items[place.item]
        if PARTS[kind].list not in LISTS.get(item.type, ()):
            raise AdapterError("a part is in an item that has none")
        if place not in item.texts:
            if item.is_done:
                raise AdapterError("a part came after its item was complete")
            item.texts[place] = []
            yield Opaque(0, {"part": kind}, place)

    def close_part(self, kind: str, place: Place, part: Mapping[str, Any]) -> Iterator[Piece]:
        yield from self.begin_part(kind, place)
        yield from self.rest(place, PARTS[kind].kind, part.get(PARTS[kind].field), PARTS[kind].channel)
        item, annotations = self.items[place.item], part.get("annotations")
        for annotation in (annotations if isinstance(annotations, list) else [])[item.annotations.get(place, 0) :]:
            yield from self.annotate(annotation, place)
        self.dropped += leftovers(part, PART_FIELDS | {PARTS[kind].field})
        if place not in item.closed:
            item.closed.add(place)
            yield Opaque(0, {"part_done": True}, place)

    def read_part_text(self, kind: str, verb: str, place: Place, said: Mapping[str, Any]) -> Iterator[Piece]:
        yield from self.begin_part(kind, place)
        part = PARTS[kind]
        if verb == "done":
            yield from self.rest(place, part.kind, said.get(part.field), part.channel)
        else:
            yield from self._text(place, part.kind, said.get("delta"), part.channel, said.get("logprobs"))

    def read_call_text(self, kind: str, verb: str, index: int, said: Mapping[str, Any]) -> Iterator[Piece]:
        if index not in self.items or self.items[index].type != kind:
            raise AdapterError("a call has not begun")
        call = CALLS[kind]
        if verb == "done":
            yield from self.rest(Place(index), call.kind, said.get(call.field))
        else:
            yield from self._text(Place(index), call.kind, said.get("delta"))

    def annotate(self, annotation: Any, place: Place) -> Iterator[Piece]:
        item = self.items[place.item]
        item.annotations[place] = item.annotations.get(place, 0) + 1
        if isinstance(annotation, dict) and place not in item.closed:
            yield self._whole("annotations", annotation, place)
        else:
            self.dropped += 1

    def rest(self, place: Place, kind: Kind, text: Any, channel: str = "") -> Iterator[Piece]:
        """Of a text that is told as a whole, what the deltas have not told."""
        known = "".join(self.items[place.item].texts[place])
        if not isinstance(text, str | None):
            raise AdapterError("a text is not a string")
        if text is not None and text.startswith(known):
            yield from self._text(place, kind, text[len(known) :], channel)
        else:
            self.dropped += text is not None  # another text than was told: the first one counts

    def _text(self, place: Place, kind: Kind, text: Any, channel: str = "", logprobs: Any = None) -> Iterator[Piece]:
        item = self.items[place.item]
        if not isinstance(text, str):
            raise AdapterError("a text is not a string")
        if place in item.closed:  # nothing is said of a text after its end
            self.dropped += bool(text)
            return
        item.texts[place].append(text)
        if not text:
            return
        field_name = CALLS[item.type].field if item.type in CALLS else ""
        paired, dropped = pair(logprobs, text, self._options.allow_unscanned) if logprobs else ((), 0)
        self.dropped += dropped
        key = Key(0, channel or f"tool_calls.{place.item}.{field_name}")
        yield Delta(key, kind, text, place, logprobs=paired)

    def _whole(self, name: str, value: dict[str, Any], place: Place) -> Delta:
        self._objects += 1
        key = Key(0, f"{name}.{self._objects}")
        delta, dropped = whole(key, value, place, keep_data=self._options.allow_unscanned)
        self.dropped += dropped
        return delta
