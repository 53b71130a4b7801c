"""What a client finds in the list of models, whoever is behind it."""

import asyncio
import json
import logging
from typing import Any

import pytest

from tests.fakes import RawUpstream, ScriptedUpstream
from tests.servers import weir, weir_before
from tests.sockets import PATIENCE_SECONDS, Reply, ask, http_request, timed


async def get(url: str, path: str) -> Reply:
    return await ask(url, http_request(b"", method="GET", path=path, headers={"Authorization": "Bearer sk-client"}))


MODELS = b'{"object":"list","data":[{"id":"gpt-x","object":"model","secret":"canary"}]}'


async def test_models_are_rebuilt() -> None:
    upstream = ScriptedUpstream([MODELS], content_type="application/json", headers={"x-request-id": "req_1"})
    async with weir(upstream) as server:
        reply = await get(server.url, "/v1/models?limit=2")
    assert reply.json == {"object": "list", "data": [{"id": "gpt-x", "object": "model"}]}
    assert reply.headers["x-request-id"] == "req_1"
    [seen] = upstream.requests
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("GET", "/v1/models", "limit=2", b"")


@pytest.mark.parametrize("status", [401, 404, 429, 500])
async def test_a_refused_list_of_models_keeps_its_status_alone(status: int) -> None:
    upstream = ScriptedUpstream([b'{"error":"canary"}'], status=status, headers={"retry-after": "9"})
    async with weir(upstream) as server:
        reply = await get(server.url, "/v1/models")
    assert reply.status == status
    assert reply.headers["retry-after"] == "9"
    assert b"canary" not in reply.raw


@pytest.mark.parametrize("raw", [b"[]", b"<html>", b"[" * 100_000, b""])
async def test_a_list_of_models_that_cannot_be_read_is_a_502(raw: bytes) -> None:
    async with weir(ScriptedUpstream([raw])) as server:
        assert (await get(server.url, "/v1/models")).status == 502


async def test_a_list_of_models_that_stalls_or_breaks_is_a_fault_of_the_upstream() -> None:
    async with weir(ScriptedUpstream([b"{", b"}"], stall_at=1), upstream__idle_seconds=0.1) as server:
        assert (await get(server.url, "/v1/models")).status == 504
    async with weir(RawUpstream(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")) as server:
        assert (await get(server.url, "/v1/models")).status == 502


FILE = """\
[[upstream]]
name = "openai"
base_url = "{openai}"
client_key = true
[[upstream]]
name = "claude"
base_url = "{claude}"
models = ["claude-*"]
api_key = "sk-claude-canary"
first_byte_seconds = 0.3
idle_seconds = 0.3
"""


def listing(*ids: str, **fields: Any) -> ScriptedUpstream:
    data = [{"id": one, "object": "model", "owned_by": "them"} for one in ids]
    return ScriptedUpstream([json.dumps({"data": data}).encode()], content_type="application/json", **fields)


OPENAI = ("gpt-x", "claude-1", "gpt-x", "gpt-y")


async def test_lists_are_merged_and_only_what_would_be_routed_there_is_in_them() -> None:
    upstreams = {"openai": listing(*OPENAI), "claude": listing("claude-1", "claude-2", "other")}
    async with weir_before(upstreams, FILE) as server:
        reply = await get(server.url, "/v1/models?limit=1")
    assert [entry["id"] for entry in reply.json["data"]] == ["gpt-x", "gpt-y", "claude-1", "claude-2"]
    assert reply.json["data"][2] == {"id": "claude-1", "object": "model", "owned_by": "them"}
    keys = {name: upstream.requests[0]["headers"]["authorization"] for name, upstream in upstreams.items()}
    assert keys == {"openai": "Bearer sk-client", "claude": "Bearer sk-claude-canary"}
    assert not any(upstream.requests[0]["query"] for upstream in upstreams.values())  # a page of one is none of all


DEAD: dict[str, tuple[ScriptedUpstream | RawUpstream, str]] = {
    "gone": (RawUpstream(), "502 upstream_unreachable"),
    "slow": (listing(first_byte_delay=3600), "504 upstream_timeout"),
    "stalled": (ScriptedUpstream([b"{", b"}"], stall_at=1), "504 upstream_timeout"),
    "refusing": (ScriptedUpstream([b"canary sk-claude-canary"], status=401), "401 None"),
    "mad": (ScriptedUpstream([b"<html>canary"]), "502 None"),
}


@pytest.mark.parametrize(("dead", "reason"), DEAD.values(), ids=DEAD)
async def test_one_that_is_dead_leaves_the_others_listed_and_the_log_says_so(
    dead: ScriptedUpstream | RawUpstream, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with weir_before({"openai": listing(*OPENAI), "claude": dead}, FILE) as server:
            with timed():
                reply = await get(server.url, "/v1/models")
    assert [entry["id"] for entry in reply.json["data"]] == ["gpt-x", "gpt-y"]
    assert [record.getMessage() for record in caplog.records] == [
        f"models of the upstream claude are not listed: {reason}"
    ]
    assert b"canary" not in reply.raw


async def test_they_are_asked_at_once_and_waited_for_no_longer_than_a_client_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upstreams = {"openai": listing("gpt-x"), "claude": listing("claude-1")}
    for upstream in upstreams.values():
        upstream.first_byte_delay = 3600
    async with weir_before(upstreams, FILE.replace("0.3", "3600")) as server, asyncio.TaskGroup() as group:
        asking = group.create_task(get(server.url, "/v1/models"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            for upstream in upstreams.values():
                await upstream.asked.wait()  # of each, though none has answered
        asking.cancel()
        monkeypatch.setattr("proxy.model_handlers.SLOWEST_SECONDS", 0.1)
        with timed():
            assert (await get(server.url, "/v1/models")).status == 502


async def test_a_client_that_leaves_leaves_no_request_behind() -> None:
    upstreams = {"openai": listing("gpt-x", first_byte_delay=3600), "claude": listing("claude-1")}
    async with weir_before(upstreams, FILE) as server, asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE_SECONDS):
        asking = group.create_task(get(server.url, "/v1/models"))
        await upstreams["openai"].asked.wait()
        asking.cancel()
        await upstreams["openai"].left.wait()
