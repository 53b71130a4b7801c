"""One answer through Weir at any door, for the tests that are named after public bugs of others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.doors import DOORS, Heard
from tests.driver import chunk
from tests.fakes import ScriptedGuard, ScriptedUpstream, words
from tests.servers import recorded, weir
from tests.sockets import Reply, ask, http_request

JSON = "application/json"
SSE = "text/event-stream"
CANARY = words("canary")  # flagged from the token on that completes the word
FLAGGED = "these words are fine, but a canary sings on and on"
SAFE_PART = "these words are fine, but a"


@dataclass
class Told:
    """What the client got, what the record says, and what the upstream was asked."""

    reply: Reply
    heard: Heard | None
    record: Any
    asked: list[dict[str, Any]]
    guard: ScriptedGuard


async def tell(
    door: str = "chat/completions",
    text: str = FLAGGED,
    *,
    is_streamed: bool = True,
    guard: ScriptedGuard | None = None,
    upstream: ScriptedUpstream | None = None,
    chunks: Sequence[Any] | None = None,
    more: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **settings: Any,
) -> Told:
    """Ask at a door whose upstream says `text`, or `chunks`; `more` is added to what is asked."""
    one, guard = DOORS[door], guard or ScriptedGuard(CANARY)
    said = list(chunks) if chunks is not None else one.chunks(text, is_body=not is_streamed)
    upstream = upstream or ScriptedUpstream(said, content_type=SSE if is_streamed else JSON)
    data = json.dumps({**one.ask, "stream": is_streamed, **(more or {})}).encode()
    async with weir(upstream, guard, **{"policy__notice": ""} | settings) as server:
        with recorded() as records:
            reply = await ask(server.url, http_request(data, path=one.path, headers=headers))
            record = await records.next()
    assert guard.slots == 0
    heard = one.understood(reply.body, is_body=not is_streamed) if reply.status == 200 else None
    return Told(reply, heard, record, upstream.requests, guard)


def is_cut(told: Told, door: str = "chat/completions") -> bool:
    """Is it cut before the flagged word, with the safe part whole, and so recorded?"""
    heard = told.heard
    assert heard is not None
    assert b"canary" not in told.reply.raw
    assert heard.text.startswith(SAFE_PART)
    return heard.finish == DOORS[door].cut and heard.error is None and told.record["outcome"] == "cut"


def parts(*texts: str, field: str = "content", index: int = 0) -> list[bytes]:
    return [chunk({field: text}, index=index) for text in texts]
