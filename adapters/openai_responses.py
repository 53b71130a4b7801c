"""/v1/responses, streamed and as one body: every repetition is written anew from what was released."""

import secrets
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from adapters.base import Block, Delta, Event, Failure, Finish, Kind, Note, Opaque, Options, Piece, Report, Usage
from adapters.notations import moderation, weir_block, weir_finish, weir_note
from adapters.openai_responses_head import blank
from adapters.openai_responses_items import CALLS, CONTENT, ID_PREFIXES, LISTS, PARTS, Place
from adapters.openai_responses_reader import ResponsesReader
from adapters.strict_json import write
from adapters.structures import value_of

NOTICE = Place(-1, CONTENT)  # the text that says the notice, in no item of the upstream's

Said = dict[str, Any]


class ResponsesWriter:
    """Released pieces -> what is said, as objects. Items are numbered anew: some of the upstream's may be missing."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._head: Said = {}
        self._numbers: dict[int, int] = {}  # the upstream's index of an item -> ours
        self._items: list[Said] = []  # as released
        self._open: list[int] = []  # items under way, by the upstream's index
        self._parts: dict[Place, Said] = {}  # parts under way
        self._texts: dict[Place, list[str]] = {}  # of parts and calls under way
        self.response: Said = {}  # the whole of it, once it has ended

    def say(self, piece: Delta | Opaque, note: Note | None) -> list[Said]:
        if isinstance(piece, Opaque):
            return self._say_opaque(piece)
        said, place = self._begin(), piece.source
        if piece.kind is Kind.OBJECT:
            value = value_of(piece)
            return said + (self._annotate(place, value) if place.list else self._whole_item(place, value))
        if piece.kind is Kind.NAME:
            said += self._begin_item(place, {**piece.extra, "name": piece.text})
        else:
            said.append(self._delta(place, piece))
        if note is not None and self._options.notations.weir:
            said[-1]["weir"] = weir_note(note)
        return said

    def finish(self, finish: Finish, report: Report) -> list[Said]:
        said = self._begin() + self._close_all("completed")
        self._head |= {name: value for name, value in finish.source["head"].items() if name not in ("id", "created_at")}
        is_partial = finish.reason in ("max_output_tokens", "content_filter")
        status = "incomplete" if is_partial else finish.reason
        more = {"weir": weir_finish(report)} if self._options.notations.weir else {}
        details = {"reason": finish.reason} if is_partial else None
        return said + self._end(status, details, finish.source["usage"], more | self._moderation(report))

    def block(self, block: Block, report: Report) -> list[Said]:
        """The notice goes on in the text under way, or is a message of its own."""
        said = self._begin()
        place = next((place for place, part in self._parts.items() if part["type"] == "output_text"), None)
        if place is None:
            said += self._close_all("incomplete")
        if place is None and block.notice:
            place = NOTICE
            said += self._begin_item(place, {"type": "message"}) + self._begin_part(place, "output_text")
        if place is not None and block.notice:
            said.append(self._text(place, block.notice))
        said += self._close_all("incomplete")
        # Half a call must never run, nor one that belongs to an answer that was cut.
        self._items = [item for item in self._items if item["type"] in LISTS]
        more = {"weir": weir_block(block)} if self._options.notations.weir else {}
        return said + self._end("incomplete", {"reason": "content_filter"}, None, more | self._moderation(report))

    def _say_opaque(self, piece: Opaque) -> list[Said]:
        payload, place = piece.payload, piece.source
        if "response" in payload:
            return self._begin(payload["response"])
        said = self._begin()
        if "item" in payload:
            return said + self._begin_item(place, {"name": "", **payload["item"]})
        if "part" in payload:
            return said + self._begin_part(place, payload["part"])
        return said + (self._close_part(place) if "part_done" in payload else self._close_item(place.item, "completed"))

    # The response as a whole.

    def _begin(self, head: Said | None = None) -> list[Said]:
        if self._head:
            return []
        self._head = head or blank(self._options)
        begun = self._state("in_progress", None, None)
        return [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]

    def _state(self, status: str, details: Said | None, usage: Said | None) -> Said:
        output = list(self._items)
        ending = {"status": status, "error": None, "incomplete_details": details, "output": output, "usage": usage}
        return {**self._head, **ending}

    def _end(self, status: str, details: Said | None, usage: Said | None, more: Said) -> list[Said]:
        self.response = self._state(status, details, usage) | more
        kind = status if status in ("incomplete", "queued", "in_progress") else "completed"
        return [{"type": f"response.{kind}", "response": self.response}]

    def _moderation(self, report: Report) -> Said:
        """Each side is one result here, where chat has a list."""
        if not self._options.notations.openai:
            return {}
        sides = moderation(self._options.guard_model, report.prompt, [report.answer])
        return {"moderation": {name: (side.get("results") or [side])[0] for name, side in sides.items()}}

    # Items.

    def _begin_item(self, place: Place, head: Said) -> list[Said]:
        kind = head["type"]
        prefix = CALLS[kind].id_prefix if kind in CALLS else ID_PREFIXES[kind]
        item: Said = {"id": f"{prefix}_{secrets.token_hex(16)}", "type": kind, "status": "in_progress"}
        if kind in CALLS:
            item |= {"call_id": f"call_{secrets.token_hex(12)}", **head, CALLS[kind].field: ""}
        else:
            item |= {name: value for name, value in head.items() if name != "name"} | {name: [] for name in LISTS[kind]}
            item |= {"role": "assistant"} if kind == "message" else {}
        return self._add(place, item)

    def _add(self, place: Place, item: Said) -> list[Said]:
        self._numbers[place.item] = len(self._numbers)
        self._items.append(item)
        self._open.append(place.item)
        return [self._of_item(place.item, "output_item.added", item=deepcopy(item))]

    def _whole_item(self, place: Place, item: Said) -> list[Said]:
        return self._add(place, item) + self._close_item(place.item, str(item.get("status", "completed")))

    def _close_item(self, index: int, status: str) -> list[Said]:
        if index not in self._open:
            return []
        said = [one for place in list(self._parts) if place.item == index for one in self._close_part(place)]
        self._open.remove(index)
        item = self._item(index)
        is_call = item["type"] in CALLS
        if is_call and status == "incomplete":
            return []
        if "status" in item:
            item["status"] = status
        if is_call:
            call = CALLS[item["type"]]
            item[call.field] = "".join(self._texts.pop(Place(index), ()))
            name = {"name": item["name"]} if item["type"] == "function_call" else {}
            said.append(self._of_text(Place(index), f"{call.event}.done", {call.field: item[call.field], **name}))
        return [*said, self._of_item(index, "output_item.done", item=deepcopy(item))]

    def _close_all(self, status: str) -> list[Said]:
        return [said for index in list(self._open) for said in self._close_item(index, status)]

    # Parts, and texts.

    def _begin_part(self, place: Place, kind: str) -> list[Said]:
        part = self._parts[place] = PARTS[kind].blank(kind)
        parts = self._item(place.item)[place.list]
        parts.append(part)
        return [self._of_text(place, f"{PARTS[kind].part_event}.added", {"part": deepcopy(part)})]

    def _close_part(self, place: Place) -> list[Said]:
        part = self._parts.pop(place, None)
        if part is None:
            return []
        kind = PARTS[part["type"]]
        part[kind.field] = "".join(self._texts.pop(place, ()))
        whole = {kind.field: part[kind.field]} | ({"logprobs": part["logprobs"]} if "logprobs" in part else {})
        return [
            self._of_text(place, f"{kind.event}.done", whole, part),
            self._of_text(place, f"{kind.part_event}.done", {"part": deepcopy(part)}, part),
        ]

    def _delta(self, place: Place, piece: Delta) -> Said:
        if not place.list:
            item = self._item(place.item)
            call = CALLS[item["type"]]
            self._texts.setdefault(place, []).append(piece.text)
            return self._of_text(place, f"{call.event}.delta", {"delta": piece.text})
        return self._text(place, piece.text, [logprob.entry for logprob in piece.logprobs])

    def _text(self, place: Place, text: str, logprobs: list[Mapping[str, Any]] | None = None) -> Said:
        part = self._parts[place]
        kind = PARTS[part["type"]]
        self._texts.setdefault(place, []).append(text)
        more: Said = {}
        if "logprobs" in part:
            part["logprobs"] += logprobs or []
            more = {"logprobs": logprobs or []}
        return self._of_text(place, f"{kind.event}.delta", {"delta": text, **more})

    def _annotate(self, place: Place, annotation: Said) -> list[Said]:
        annotations = self._parts[place]["annotations"]
        annotations.append(annotation)
        more = {"annotation": annotation, "annotation_index": len(annotations) - 1}
        return [self._of_text(place, "output_text.annotation.added", more)]

    def _item(self, index: int) -> Said:
        return self._items[self._numbers[index]]

    def _of_item(self, index: int, event: str, **more: Any) -> Said:
        return {"type": f"response.{event}", "output_index": self._numbers[index], **more}

    def _of_text(self, place: Place, event: str, more: Said, part: Said | None = None) -> Said:
        item = self._item(place.item)
        said = {"type": f"response.{event}", "item_id": item["id"], "output_index": self._numbers[place.item]}
        if place.list:
            part = part or self._parts[place]
            number = next(number for number, one in enumerate(item[place.list]) if one is part)
            said[PARTS[part["type"]].index_name] = number
        return said | more


class ResponsesStream:
    """One streamed response. Its events are numbered by us."""

    def __init__(self, options: Options) -> None:
        self._reader = ResponsesReader(options)
        self._writer = ResponsesWriter(options)
        self._number = 0

    @property
    def dropped(self) -> int:
        return self._reader.dropped

    def decode(self, event: Event) -> list[Piece]:
        return self._reader.read(event)

    def encode(self, piece: Delta | Opaque, note: Note | None) -> list[Event]:
        return self._events(self._writer.say(piece, note))

    def encode_finish(self, finish: Finish, report: Report) -> list[Event]:
        return self._events(self._writer.finish(finish, report))

    def encode_block(self, block: Block, report: Report) -> list[Event]:
        return self._events(self._writer.block(block, report))

    def encode_usage(self, usage: Usage) -> list[Event]:
        return []

    def encode_end(self) -> list[Event]:
        return []

    def encode_failure(self, failure: Failure) -> list[Event]:
        """Said twice: clients raise at `error`, and the dialect's own event has no such key."""
        error = {"message": failure.message, "type": failure.type, "param": None, "code": failure.code}
        told = {"type": "error", "code": failure.code, "message": failure.message, "param": None, "error": error}
        return self._events([told])

    def _events(self, said: list[Said]) -> list[Event]:
        events = []
        for one in said:
            events.append(Event(write({"type": one["type"], "sequence_number": self._number, **one}), one["type"]))
            self._number += 1
        return events


class ResponsesBody:
    """One response without `stream`: what the last event of the stream would say."""

    def __init__(self, options: Options) -> None:
        self._reader = ResponsesReader(options)
        self._writer = ResponsesWriter(options)
        self._spans: list[Said] = []

    @property
    def dropped(self) -> int:
        return self._reader.dropped

    def decode(self, event: Event) -> list[Piece]:
        return self._reader.read_body(event)

    def encode(self, piece: Delta | Opaque, note: Note | None) -> list[Event]:
        said = self._writer.say(piece, note)
        self._spans += [one["weir"] for one in said if one.get("weir", {}).get("category")]
        return []

    def encode_finish(self, finish: Finish, report: Report) -> list[Event]:
        self._writer.finish(finish, report)
        return []

    def encode_block(self, block: Block, report: Report) -> list[Event]:
        self._writer.block(block, report)
        return []

    def encode_usage(self, usage: Usage) -> list[Event]:
        return []

    def encode_end(self) -> list[Event]:
        response = self._writer.response
        if self._spans and "weir" in response:
            response["weir"]["spans"] = self._spans
        return [Event(write(response))]

    def encode_failure(self, failure: Failure) -> list[Event]:
        error = {"message": failure.message, "type": failure.type, "param": None, "code": failure.code}
        return [Event(write({"error": error}))]
