"""Section H of docs/reliability.md: every way in which text can travel."""

import json
import os
import random
import re
from typing import Any

import pytest

from proxy.records import Scanned
from tests.doors import events_of
from tests.driver import DONE, WORDS, answer, body, call, chunk
from tests.e2e.test_routes import METHODS, ROUTES, body_for
from tests.e2e.test_streams import chunked, events
from tests.fakes import RawUpstream, ScriptedGuard, ScriptedUpstream, framed, labels, words
from tests.judge import SENTENCES
from tests.servers import recorded, weir
from tests.sockets import ask, http_request

PATHS = 2000 if "WEIR_LONG" in os.environ else 200
JSON = "application/json"
TEXT = "".join(WORDS)
CANARY = words("canary")


async def test_h1_a_flag_in_any_choice_ends_that_choice_alone() -> None:
    for flagged in range(4):
        chunks = [chunk({"content": word}, index=index) for word in WORDS[:5] for index in (2, 0, 3, 1)]
        chunks += [chunk({"content": " canary and more"}, index=flagged)]
        chunks += [*(chunk({}, "stop", index=index) for index in (1, 3, 0, 2)), DONE]
        async with weir(ScriptedUpstream(chunks), ScriptedGuard(CANARY), policy__notice="") as server:
            reply = await ask(server.url, stream=True, n=4)
        found = events(reply)
        assert found.finish == dict.fromkeys(range(4), "stop") | {flagged: "content_filter"}
        said = {index: found.texts[index, "content"] for index in range(4)}
        assert said.pop(flagged) == "".join(WORDS[:5]) + " can"  # the token behind it is the flagged one
        assert set(said.values()) == {"".join(WORDS[:5])}


async def test_h1_when_every_choice_is_cut_the_upstream_is_left() -> None:
    chunks = [chunk({"content": f"{word} canary"}, index=index) for word in WORDS[:5] for index in range(2)]
    upstream = ScriptedUpstream(chunks, stall_at=len(chunks))
    async with weir(upstream, ScriptedGuard(CANARY)) as server:
        found = events(await ask(server.url, stream=True, n=2))
        await upstream.left.wait()
    assert found.finish == {0: "content_filter", 1: "content_filter"}


def letters(text: str) -> list[bytes]:
    return [call(0, "find"), *(call(0, arguments=one) for one in text)]


def custom(text: str) -> bytes:
    entry = {"index": 0, "id": "call_0", "type": "custom", "custom": {"name": "run", "input": text}}
    return chunk({"tool_calls": [entry]})


CALLS: dict[str, list[bytes]] = {
    "name": [call(0, "canary_tool", "{}")],
    "key": [call(0, "find", '{"a canary": 1}')],
    "value": [call(0, "find", '{"q": "a canary now"}')],
    "escapes": [call(0, "find", '{"q": "a \\u0063an\\u0061ry now"}')],
    "letter by letter": letters('{"q": "a canary now"}'),
    "escapes, letter by letter": letters('{"q": "a c\\u0061nary now"}'),
    "second of two": [call(0, "find", '{"q": 1}'), call(1, "look", '{"q": "a canary now"}')],
    "legacy": [chunk({"function_call": {"name": "find", "arguments": '{"q": "a canary now"}'}})],
    "legacy name": [chunk({"function_call": {"name": "canary_tool", "arguments": "{}"}})],
    "custom": [custom("a canary now")],
}


@pytest.mark.parametrize("name", CALLS)
async def test_h2_a_flagged_call_is_never_one_that_can_be_run(name: str) -> None:
    chunks = [*CALLS[name], chunk({}, "tool_calls"), DONE]
    guard = ScriptedGuard(CANARY)
    async with weir(ScriptedUpstream(chunks), guard, policy__debounce=1, policy__notice="") as server:
        reply = await ask(server.url, stream=True)
    finishes = [choice["finish_reason"] for event in events_of(reply.body)[:-1] for choice in event["choices"]]
    assert finishes == [None] * (len(finishes) - 1) + ["content_filter"]
    assert b"canary" not in reply.raw
    assert b"u0061ry" not in reply.raw
    assert b"u0061nary" not in reply.raw


def entry(token: str, said: str, **more: Any) -> dict[str, Any]:
    return {"token": token, "logprob": -1.0, "bytes": list(said.encode()), "top_logprobs": [], **more}


ALTERNATIVE = {"token": " canary", "logprob": -2.0, "bytes": list(b" canary")}
LOGPROBS: dict[str, Any] = {
    "token": {"content": [entry(" canary", " two")]},
    "bytes": {"content": [entry(" two", " canary")]},
    "alternatives": {"content": [entry(" two", " two", top_logprobs=[ALTERNATIVE])]},
    "refusal": {"refusal": [entry(" canary", " canary")]},
    "one more entry": {"content": [entry(" two", " two"), entry(" canary", " canary")]},
    "unknown": {"content": [entry(" two", " two", canary=1)], "canary": [entry(" canary", " canary")]},
}


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("name", LOGPROBS)
async def test_h4_logprobs_say_nothing_that_the_text_does_not(name: str, is_streamed: bool) -> None:
    choice = {"index": 0, "logprobs": LOGPROBS[name], "finish_reason": None}
    if is_streamed:
        part = b"data: " + json.dumps({"id": "x", "choices": [choice | {"delta": {"content": " two"}}]}).encode()
        upstream = ScriptedUpstream([chunk({"content": "one"}), part + b"\n\n", chunk({}, "stop"), DONE])
    else:
        message = {"role": "assistant", "content": " two"}
        whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
        whole["choices"] = [choice | {"message": message, "finish_reason": "stop"}]
        upstream = ScriptedUpstream([json.dumps(whole).encode()], content_type=JSON)
    async with weir(upstream) as server:
        reply = await ask(server.url, stream=is_streamed, logprobs=True, top_logprobs=1)
    assert reply.status == 200
    assert b"canary" not in reply.raw
    assert str(list(b" canary"))[1:-1].encode() not in reply.body.replace(b",", b", ").replace(b",  ", b", ")


@pytest.mark.parametrize("field", ["content", "reasoning_content", "refusal"])
async def test_h5_a_stream_and_a_body_are_cut_at_the_same_character(field: str) -> None:
    rng = random.Random(5)
    guard, upstream = ScriptedGuard(), ScriptedUpstream()
    async with weir(upstream, guard, policy__notice="") as server:
        for sentence in rng.sample(SENTENCES, 20):
            guard.rule = labels("".join(rng.choices("SSSSU", k=60)))
            upstream.content_type = "text/event-stream"
            upstream.chunks = [*(chunk({field: part}) for part in chunked(sentence, rng)), chunk({}, "stop"), DONE]
            found = events(await ask(server.url, stream=True))
            upstream.content_type, upstream.chunks = JSON, [body({field: sentence})]
            [choice] = (await ask(server.url)).json["choices"]
            assert (choice["message"].get(field) or "") == found.texts.get((0, field), "")
            assert choice["finish_reason"] == found.finish[0]
            assert found.finish[0] == "content_filter" or choice["message"][field] == sentence


def planted(rng: random.Random) -> bytes:
    """A chunk with a word somewhere that no chunk has anything, at a depth of 1 to 6, or in place of a name."""
    value: Any = rng.choice(
        ["a canary", ["a canary"], {"text": "a canary"}, {"a canary": 1}, {"content": ["a canary"]}]
    )
    for _ in range(rng.randint(0, 4)):
        name = rng.choice(["x", "text", "content", "parsed", "images", "provider_specific_fields"])
        value = rng.choice([{name: value}, [value]])
    event = json.loads(chunk({"content": "one"})[6:])
    choice = event["choices"][0]
    place = rng.choice([event, choice, choice["delta"]])
    names = ["x", "images", "audio_url", "parsed", "id", "model", "system_fingerprint", "object", "usage", "created"]
    names = [name for name in names if place is not choice["delta"] or name not in ("id", "model")]
    place[rng.choice(names)] = value
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def test_h6_text_in_a_place_that_nobody_knows_is_judged_or_left_out() -> None:
    rng = random.Random(6)
    upstream = ScriptedUpstream()
    async with weir(upstream, ScriptedGuard(CANARY), policy__debounce=1) as server:
        for _ in range(PATHS):
            part = planted(rng)
            upstream.chunks = [part, chunk({"content": " two"}), chunk({}, "stop"), DONE]
            reply = await ask(server.url, stream=True)
            assert b"canary" not in reply.raw, part


async def test_h6_headers_and_trailers_of_the_upstream_carry_no_text() -> None:
    raw = framed(b"".join(answer(WORDS)), "chunked")
    raw = raw.replace(
        b"\r\n\r\n", b"\r\ntrailer: x-note\r\nx-note: canary\r\nserver: canary\r\nlink: canary\r\n\r\n", 1
    )
    raw = raw.removesuffix(b"0\r\n\r\n") + b"0\r\nx-note: canary\r\nx-request-id: canary\r\n\r\n"
    async with weir(RawUpstream(raw)) as server:
        reply = await ask(server.url, stream=True)
    assert events(reply).content == TEXT
    assert b"canary" not in reply.raw


KEPT: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"store": True}),
    ("/v1/responses", {"store": True}),
    ("/v1/responses", {"background": True}),
    ("/v1/responses", {"previous_response_id": "resp_1"}),
    ("/v1/responses", {"conversation": "conv_1"}),
    ("/v1/completions", {"prompt": [1, 2, 3]}),
    ("/v1/completions", {"prompt": [[1, 2, 3]]}),
]


@pytest.mark.parametrize(("path", "fields"), KEPT, ids=range(len(KEPT)))
async def test_h8_nothing_is_kept_for_later_or_continued_unseen(path: str, fields: dict[str, Any]) -> None:
    async with weir(ScriptedUpstream()) as server:
        asked = json.loads(body_for(path)) | fields
        reply = await ask(server.url, http_request(asked, path=path))
        assert reply.status == 400 or server.upstream.requests
        for seen in server.upstream.requests:
            assert not json.loads(seen["body"]).get("store")


async def test_h8_whatever_the_upstream_says_at_any_route_reaches_nobody_unjudged() -> None:
    said = json.dumps({"id": "x", "data": "canary", "content": "canary", "output_text": "canary", "text": "canary"})
    upstream = ScriptedUpstream([said.encode()], content_type=JSON)
    async with weir(upstream, ScriptedGuard(CANARY)) as server:
        for path in [*ROUTES, "/v1/responses/resp_id"]:
            for method in METHODS:
                reply = await ask(server.url, http_request(body_for(path), method=method, path=path))
                assert b"canary" not in reply.raw, (method, path)
                assert reply.status >= 400 or not server.upstream.requests or path == "/v1/moderations", (method, path)
                upstream.requests.clear()


MODES: dict[str, dict[str, Any]] = {
    "hold": {},
    "window": {"policy__release": "window", "policy__window": 8},
    "watch": {"policy__on_flag": "monitor"},
    "open": {"guard__on_failure": "open"},
}


HIDDEN: dict[str, str] = {
    "key": '{"a \\u0063anary": 1}',
    "value": '{"q": "a c\\u0061nary now"}',
    "every letter": '{"q": "' + "".join(f"\\u{ord(letter):04x}" for letter in "a canary now") + '"}',
    "array": '["a can\\u0061ry now"]',
    "string": '"a canar\\u0079 now"',
    "behind blanks": '\n  {"q": "a \\u0063anary now"}',
    "behind an escape": '{"q": "one\\n\\ta \\u0063anary now"}',
}


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("name", HIDDEN)
async def test_h14_an_answer_in_json_is_judged_as_its_escapes_spell_it_too(name: str, size: int) -> None:
    text = HIDDEN[name]
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    async with weir(ScriptedUpstream(answer(parts)), ScriptedGuard(CANARY), policy__notice="") as server:
        found = events(await ask(server.url, stream=True, response_format={"type": "json_object"}))
        server.upstream.content_type, server.upstream.chunks = JSON, [body({"content": text})]
        [choice] = (await ask(server.url, response_format={"type": "json_object"})).json["choices"]
    assert found.finish == {0: "content_filter"}
    assert choice["finish_reason"] == "content_filter"
    assert (choice["message"].get("content") or "") == found.content
    assert "canary" not in read_escapes(found.content)


def read_escapes(text: str) -> str:
    return re.sub(r"\\\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)


async def test_h10_an_answer_harvested_token_by_token_ends_where_a_whole_one_is_cut() -> None:
    """A client that has each token continued from what it got gets no further than with one request."""
    guard = ScriptedGuard(CANARY)
    spoken = [*WORDS[:5], " a", " canary", " and", " more"]
    upstream = ScriptedUpstream(answer(spoken))
    async with weir(upstream, guard, policy__notice="", policy__debounce=1) as server:
        whole = events(await ask(server.url, stream=True)).content
        harvested = ""
        for word in spoken:
            upstream.chunks = answer([word], "length")
            turns = [{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": harvested}]
            reply = await ask(server.url, stream=True, max_tokens=1, messages=turns[: 2 if harvested else 1])
            if reply.status != 200:
                break
            harvested += events(reply).content
            if events(reply).finish == {0: "content_filter"}:
                break
    assert "canary" not in whole
    assert "canary" not in harvested
    assert harvested.startswith("".join(spoken[:5]))


async def test_h16_two_channels_are_two_texts() -> None:
    """A limit, stated: what only both of them say together is not seen; what one of them says is."""
    halves = [chunk({"reasoning_content": "a can"}), chunk({"content": "ary now"}), chunk({}, "stop"), DONE]
    whole = [chunk({"reasoning_content": "a canary now"}), chunk({"content": "now"}), chunk({}, "stop"), DONE]
    async with weir(ScriptedUpstream(halves), ScriptedGuard(CANARY), policy__notice="") as server:
        found = events(await ask(server.url, stream=True))
        assert (found.texts[0, "reasoning_content"], found.content) == ("a can", "ary now")
        server.upstream.chunks = whole
        assert events(await ask(server.url, stream=True)).finish == {0: "content_filter"}


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("mode", MODES)
async def test_h19_scanned_is_said_only_where_every_delivered_character_was(mode: str, is_streamed: bool) -> None:
    upstream = ScriptedUpstream(answer(WORDS))
    if not is_streamed:
        upstream = ScriptedUpstream([body({"content": TEXT})], content_type=JSON)
    for fails_after in (None, -1, 0, 3, 9):
        guard = ScriptedGuard(fails_after=fails_after)
        async with weir(upstream, guard, **MODES[mode]) as server:
            with recorded() as records:
                await ask(server.url, stream=is_streamed)
                record = await records.next()
        judged = all(found["scanned"] >= found["delivered"] for found in record["channels"])
        assert (record["scanned"] == Scanned.FULL) == (judged and fails_after != -1)
        delivered = sum(found["delivered"] for found in record["channels"])
        assert mode != "open" or delivered == len(TEXT)
        if mode in ("watch", "open") and fails_after is not None:
            assert record["scanned"] != Scanned.FULL
            assert record["error"].startswith("Guard")
