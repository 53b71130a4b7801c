"""Each door over sockets: safe, cut, blocked, failed, streamed and as one body."""

import json
from typing import Any

import pytest

from tests.doors import DOORS, Door, Heard
from tests.driver import WORDS
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels
from tests.servers import Weir, recorded, weir
from tests.sockets import Reply, ask, http_request

TEXT = "".join(WORDS)
SHAPES = [(name, is_body) for name in sorted(DOORS) for is_body in (False, True)]
KINDS = {False: "text/event-stream", True: "application/json"}


def upstream_of(door: Door, *, is_body: bool, text: str = TEXT) -> ScriptedUpstream:
    return ScriptedUpstream(door.chunks(text, is_body=is_body), content_type=KINDS[is_body])


async def ask_at(server: Weir, door: Door, *, is_body: bool, **fields: Any) -> Reply:
    body = door.ask | {"stream": not is_body} | fields
    return await ask(server.url, http_request(json.dumps(body).encode(), path=door.path))


def heard(door: Door, reply: Reply, *, is_body: bool) -> Heard:
    assert reply.headers["content-type"].startswith(KINDS[is_body])
    return door.understood(reply.body, is_body=is_body)


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
async def test_a_safe_answer_and_its_record(name: str, is_body: bool) -> None:
    door = DOORS[name]
    async with weir(upstream_of(door, is_body=is_body)) as server:
        with recorded() as records:
            reply = await ask_at(server, door, is_body=is_body)
        record = await records.next()
    found = heard(door, reply, is_body=is_body)
    assert (found.text, found.finish, reply.is_complete) == (TEXT, door.stop, True)
    assert server.upstream.requests[0]["path"] == door.path
    assert reply.headers["x-weir-scanned"] == "full"
    assert (record["endpoint"], record["outcome"], record["scanned"]) == (door.path, "complete", "full")
    assert [channel["delivered"] for channel in record["channels"]] == [len(TEXT)]
    assert server.guard.slots == 0


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
async def test_a_flagged_answer_is_cut(name: str, is_body: bool) -> None:
    door = DOORS[name]
    async with weir(upstream_of(door, is_body=is_body), ScriptedGuard(labels("SSUU")), policy__notice="!") as server:
        reply = await ask_at(server, door, is_body=is_body)
    found = heard(door, reply, is_body=is_body)
    assert (found.text, found.finish) == ("one two!", door.cut)
    assert b"three" not in reply.raw


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
async def test_a_blocked_prompt_is_a_400_in_the_shape_of_the_door(name: str, is_body: bool) -> None:
    door = DOORS[name]
    guard = ScriptedGuard(prompt_level=UNSAFE)
    async with weir(upstream_of(door, is_body=is_body), guard, policy__prompt_check="before") as server:
        reply = await ask_at(server, door, is_body=is_body)
    assert reply.status == 400
    assert reply.headers["x-should-retry"] == "false"
    assert reply.error["code"] == "content_filter"
    assert server.upstream.requests == []


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
async def test_a_blocked_prompt_can_be_answered(name: str, is_body: bool) -> None:
    door = DOORS[name]
    guard = ScriptedGuard(prompt_level=UNSAFE)
    settings: Any = {"policy__prompt_block": "answer", "policy__prompt_notice": "No."}
    async with weir(upstream_of(door, is_body=is_body), guard, **settings) as server:
        reply = await ask_at(server, door, is_body=is_body)
    found = heard(door, reply, is_body=is_body)
    assert (found.text, found.finish, found.is_ended) == ("No.", door.cut, True)


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
async def test_a_guard_that_fails_never_ends_well(name: str, is_body: bool) -> None:
    door = DOORS[name]
    source = upstream_of(door, is_body=is_body)
    source.pause = 0.01  # something leaves before the guard fails
    async with weir(source, ScriptedGuard(fails_after=10)) as server:
        reply = await ask_at(server, door, is_body=is_body)
    if is_body:
        assert reply.status == 503
        assert reply.error["message"]
        return
    found = heard(door, reply, is_body=False)
    assert found.error is not None
    assert not found.is_ended
    assert not reply.is_complete
    assert TEXT.startswith(found.text)
    assert found.text != TEXT


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
async def test_an_upstream_that_dies_never_ends_well(name: str, is_body: bool) -> None:
    door = DOORS[name]
    source = upstream_of(door, is_body=is_body)
    source.cut_at = 4 if not is_body else 1
    source.headers = {} if not is_body else {"content-length": "99999"}
    async with weir(source) as server:
        reply = await ask_at(server, door, is_body=is_body)
    assert reply.status == (502 if is_body else 200)
    if not is_body:
        found = heard(door, reply, is_body=False)
        assert found.error is not None
        assert not found.is_ended


@pytest.mark.parametrize("name", sorted(DOORS))
@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_an_upstreams_refusal_keeps_its_status(name: str, status: int) -> None:
    door = DOORS[name]
    said = b'{"type":"error","error":{"type":"rate_limit_error","message":"Slow down."}}'
    source = ScriptedUpstream([said], status=status, content_type="application/json", headers={"retry-after": "7"})
    async with weir(source) as server:
        reply = await ask_at(server, door, is_body=False)
    assert (reply.status, reply.headers["retry-after"], reply.error["message"]) == (status, "7", "Slow down.")


@pytest.mark.parametrize("name", sorted(DOORS))
async def test_a_request_that_is_not_json_is_refused_in_the_shape_of_the_door(name: str) -> None:
    async with weir(ScriptedUpstream()) as server:
        for raw in (b"{", b'{"model":"m"}', b'{"model":"http://evil.test"}'):
            reply = await ask(server.url, http_request(raw, path=DOORS[name].path))
            assert reply.status == 400
            assert reply.error["message"]
        assert (await ask(server.url, http_request(b"", method="GET", path=DOORS[name].path))).status == 405
    assert server.upstream.requests == []
