"""The same text gets the same verdict at the same character at every door, streamed or whole, in any chunking."""

import json
import os
import random
from typing import Any

from tests.doors import DOORS, Door
from tests.fakes import ScriptedGuard, ScriptedUpstream, labels
from tests.judge import random_cut, random_text
from tests.servers import Records, Weir, recorded, weir
from tests.sockets import ask, http_request

TEXTS = 500 if "WEIR_LONG" in os.environ else 12
CHUNKINGS = 3 if "WEIR_LONG" in os.environ else 1  # of each text at each door, when streamed
KINDS = {False: "text/event-stream", True: "application/json"}


async def verdict(server: Weir, records: Records, door: Door, raw: bytes, source: random.Random) -> tuple[Any, ...]:
    """What the client read, how that ended, and what the record says was flagged, and where."""
    is_body = raw.startswith(b"{")
    server.upstream.content_type = KINDS[is_body]
    server.upstream.chunks = cut_anywhere(raw, source)
    body = json.dumps(door.ask | {"stream": not is_body}).encode()
    reply = await ask(server.url, http_request(body, path=door.path))
    heard = door.understood(reply.body, is_body=is_body)
    [channel] = (await records.next())["channels"]
    assert heard.is_ended
    return heard.text, heard.finish == door.cut, channel["delivered"], channel["flagged"]


def cut_anywhere(raw: bytes, source: random.Random) -> list[bytes]:
    places = sorted(source.sample(range(1, len(raw)), min(source.randint(0, 12), len(raw) - 1)))
    return [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]


def answers(text: str, source: random.Random) -> list[tuple[Door, bytes]]:
    """All forms in which an upstream may say it, in deltas of any sizes."""
    whole = [(door, door.body(text)) for door in DOORS.values()]
    cuts = [(door, random_cut(source, text)) for door in DOORS.values() for _ in range(CHUNKINGS)]
    return [*whole, *((door, b"".join(door.answer(cut))) for door, cut in cuts)]


async def test_every_door_gives_the_same_verdict_at_the_same_character() -> None:
    guard, source, cuts = ScriptedGuard(), random.Random(11), 0
    async with weir(ScriptedUpstream(), guard, policy__notice="") as server:
        with recorded() as records:
            for _ in range(TEXTS):
                text = random_text(source)
                guard.rule = labels("".join(source.choices("SUC", (8, 3, 1), k=30)))
                found = [await verdict(server, records, door, raw, source) for door, raw in answers(text, source)]
                assert all(one == found[0] for one in found), (text, found)
                cuts += found[0][1]
    assert guard.slots == 0
    assert TEXTS / 5 < cuts < TEXTS  # of either there are enough
    print(f"{TEXTS} texts, {TEXTS * len(answers('one', source))} answers, {cuts} texts cut")
