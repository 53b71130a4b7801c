"""What a client makes of the bytes that reached it, however they broke off: read here, by none of Weir's own code."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.sockets import read_reply


@dataclass
class Seen:
    """`outcome`: complete, cut, error or refused, as Weir tells them; broken or nothing where it could tell nothing."""

    status: int | None = None
    outcome: str = "nothing"
    text: str = ""
    gave_up: bool = False
    raw: bytes = b""
    events: list[Any] = field(default_factory=list)

    def windows_of(self, secret: str, size: int = 8) -> list[str]:
        """Parts of what must not be said, anywhere in the bytes."""
        bytes_too = self.raw + "".join(map(json.dumps, self.events)).encode()
        parts = {secret[at : at + size] for at in range(len(secret) - size + 1)}
        return sorted(part for part in parts if part.encode() in bytes_too)


def see(raw: bytes, *, gave_up: bool = False) -> Seen:
    head, mark, _ = raw.partition(b"\r\n\r\n")
    if not mark:
        return Seen(gave_up=gave_up, raw=raw)
    reply = read_reply(raw)
    seen = Seen(int(head.split()[1]), "broken", gave_up=gave_up, raw=raw)
    if seen.status != 200:
        if reply.is_complete and reply.error["message"]:
            seen.outcome = "refused"
        return seen
    data = list(events_in(reply.body))
    seen.events = [json.loads(one) for one in data if one != "[DONE]"]
    choices = [choice for event in seen.events for choice in event.get("choices", ())]
    seen.text = "".join(choice["delta"].get("content") or "" for choice in choices)
    finish = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    is_whole = data[-1:] == ["[DONE]"] and reply.is_complete
    if any("error" in event for event in seen.events):
        seen.outcome = "broken" if "[DONE]" in data or reply.is_complete else "error"
    elif is_whole and len(finish) == 1:
        seen.outcome = "cut" if finish == ["content_filter"] else "complete"
    return seen


def events_in(body: bytes) -> Iterator[str]:
    """The data of each event that has its blank line."""
    for block in re.split(r"\n\n", body.decode("utf-8", "replace"))[:-1]:
        data = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if data:
            yield "\n".join(data)
