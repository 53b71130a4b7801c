"""Section C of docs/reliability.md: bodies that two readers may understand differently."""

import json
from typing import Any

import pytest

from tests.doors import DOORS
from tests.driver import DONE, WORDS, answer, body, chunk
from tests.e2e.test_streams import events
from tests.fakes import ScriptedUpstream
from tests.servers import weir
from tests.sockets import ASK, ask, http_request

JSON = "application/json"

# Pairs of a member and the same member once more, each put at the place that the first names.
TWICE: list[tuple[str, str]] = [
    *(("", twin) for twin in (
        '"messages":[],', '"messages":[{"role":"user","content":"x"}],', '"model":"other",', '"m\\u006fdel":"other",',
        '"\\u006dessages":[],', '"mess\\u0061ges":null,', '"stream":true,"stream":false,', '"n":1,"n":2,',
        '"n":1,"\\u006e":3,', '"stream":false,"\\u0073tream":true,', '"store":false,"store":true,',
        '"tools":[],"tools":[],', '"moderation":null,"moderation":null,', '"user":"a","user":"a",',
        '"metadata":{"a":"1","a":"2"},', '"metadata":{"a":{"b":1,"\\u0062":2}},', '"logit_bias":{"1":1,"1":2},',
        '"stream_options":{"include_usage":true,"include_usage":false},', '"":1,"":2,', '"\\u0000":1,"\\u0000":2,',
    )),
    *(("message", twin) for twin in (
        '"content":"y",', '"\\u0063ontent":"y",', '"role":"system",', '"r\\u006fle":"assistant",', '"content":null,',
        '"content":[],', '"name":"a","name":"b",', '"content":[{"type":"text","text":"a","text":"b"}],',
        '"tool_calls":[],"tool_calls":[],', '"x":{"y":1,"y":1},',
    )),
]  # fmt: skip


@pytest.mark.parametrize(("place", "twin"), TWICE, ids=range(len(TWICE)))
async def test_c1_a_member_given_twice_is_refused(place: str, twin: str) -> None:
    message = '{"role":"user","content":"x"}'
    if place:
        message = "{" + twin + message[1:]
        twin = ""
    raw = "{" + twin + f'"model":"m","messages":[{message}]' + "}"
    async with weir(ScriptedUpstream([body({"content": "hi"})], content_type=JSON)) as server:
        reply = await ask(server.url, http_request(raw.encode()))
        assert reply.status == 400, reply.raw
        assert server.upstream.requests == []


HALF = "\ud83d"


def places(value: Any) -> list[Any]:
    """The body with half a character in each of its strings in turn, keys included."""
    if isinstance(value, str):
        return [value + HALF]
    if isinstance(value, list):
        return [[*value[:at], one, *value[at + 1 :]] for at, item in enumerate(value) for one in places(item)]
    if not isinstance(value, dict):
        return []
    found: list[Any] = [{**value, name: one} for name, item in value.items() for one in places(item)]
    return [*found, {**value, f"x{HALF}": 1}]


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FULL: dict[str, Any] = {
    **ASK,
    "user": "u",
    "stop": ["a"],
    "metadata": {"a": "b"},
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
    "messages": [
        {"role": "system", "content": "s", "name": "n"},
        {"role": "user", "content": [{"type": "text", "text": "t"}]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "r", "tool_call_id": "1"},
    ],
}


async def test_c4_half_a_character_in_a_request_is_a_400() -> None:
    async with weir(ScriptedUpstream([body({"content": "hi"})], content_type=JSON)) as server:
        bodies = places(FULL)
        assert len(bodies) > 30
        for asked in bodies:
            reply = await ask(server.url, http_request(json.dumps(asked).encode()))
            assert reply.status == 400, (asked, reply.raw)
        for door in DOORS.values():
            for asked in places(door.ask):
                assert (await ask(server.url, http_request(json.dumps(asked).encode(), path=door.path))).status == 400
        assert server.upstream.requests == []


@pytest.mark.parametrize("name", ["content", "reasoning_content", "refusal"])
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (["one \ud83d", "\ude00 two"], "one \U0001f600 two"),
        (["one \ud83d two"], "one \ufffd two"),
        (["one \ud83d", " two"], "one \ufffd two"),
        (["\ude00", "\ud83d"], "\ufffd\ufffd"),
    ],
)
async def test_c4_half_a_character_of_the_upstream_is_replaced_or_joined(
    name: str, parts: list[str], said: str
) -> None:
    chunks = [*(chunk({name: part}) for part in parts), chunk({}, "stop"), DONE]
    async with weir(ScriptedUpstream(chunks)) as server:
        reply = await ask(server.url, stream=True)
        assert reply.body.decode("utf-8", "strict")
        assert events(reply).texts[0, name] == said
        assert reply.is_complete
        server.upstream.content_type, server.upstream.chunks = JSON, [body({name: "".join(parts)})]
        reply = await ask(server.url)
    assert reply.json["choices"][0]["message"][name] == said


@pytest.mark.parametrize("name", ["id", "model", "system_fingerprint", "finish_reason", "role", "x"])
async def test_c4_half_a_character_elsewhere_in_an_answer_ends_nothing(name: str) -> None:
    event = json.loads(answer(WORDS[:1])[1][6:])
    place = (
        event["choices"][0]["delta"] if name == "role" else event["choices"][0] if name == "finish_reason" else event
    )
    place[name] = "stop\ud83d" if name == "finish_reason" else "\ud83d"
    odd = b"data: " + json.dumps(event).encode() + b"\n\n"
    async with weir(ScriptedUpstream([odd, *answer(WORDS)[2:]])) as server:
        reply = await ask(server.url, stream=True)
    assert reply.status == 200
    assert reply.is_complete
    assert reply.body.decode("utf-8", "strict")
