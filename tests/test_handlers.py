"""Endpoints: what a client reads for each way a request can end. More of it over sockets in e2e/."""

from typing import Any

import pytest

from proxy.guard.protocol import Health
from tests.driver import WORDS, answer, read
from tests.fakes import UNSAFE, RawUpstream, ScriptedGuard, ScriptedUpstream
from tests.servers import recorded, weir
from tests.sockets import Reply, ask, http_request


async def get(url: str, path: str) -> Reply:
    return await ask(url, http_request(b"", method="GET", path=path))


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


async def test_it_is_not_ready_while_the_guard_is_not() -> None:
    class Hanging(ScriptedGuard):
        async def health(self) -> Health:
            return Health(False, "no verdict", 5.0)

    async with weir(ScriptedUpstream(), Hanging()) as server:
        reply = await get(server.url, "/readyz")
        assert (reply.status, reply.json) == (503, {"ready": False})
        assert (await get(server.url, "/healthz")).status == 200


async def test_a_mistake_anywhere_is_a_500_in_our_words(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ScriptedGuard):
        async def health(self) -> Health:
            raise RuntimeError("canary")

    async with weir(ScriptedUpstream(), Broken()) as server:
        reply = await get(server.url, "/readyz")
    assert (reply.status, reply.error["code"]) == (500, "internal_error")
    assert b"canary" not in reply.raw
    assert "canary" not in caplog.text
    assert "RuntimeError at test_handlers.py" in caplog.text


async def test_a_mistake_before_the_answer_is_a_500_with_a_record() -> None:
    guard = ScriptedGuard(prompt_fault="raise")
    guard.error = RuntimeError("canary")  # type: ignore[assignment]
    async with weir(ScriptedUpstream(answer(WORDS)), guard) as server:
        with recorded() as records:
            reply = await ask(server.url, stream=True)
        record = await records.next()
    assert (reply.status, reply.error["code"]) == (500, "internal_error")
    assert b"canary" not in reply.raw
    assert (record["outcome"], record["status"]) == ("refused", 500)
    assert record["error"].startswith("internal: RuntimeError at fakes.py")
    assert "canary" not in records.lines[0]


ENDS: list[tuple[str, int, ScriptedUpstream, ScriptedGuard]] = [
    ("complete", 200, ScriptedUpstream(answer(WORDS)), ScriptedGuard()),
    ("cut", 200, ScriptedUpstream(answer(WORDS)), ScriptedGuard(lambda _: UNSAFE)),
    ("error", 200, ScriptedUpstream(answer(WORDS)[:4]), ScriptedGuard()),
    ("refused", 400, ScriptedUpstream(answer(WORDS)), ScriptedGuard(prompt_level=UNSAFE)),
    ("refused", 503, ScriptedUpstream(answer(WORDS)), ScriptedGuard(prompt_fault="raise")),
    ("refused", 502, ScriptedUpstream([]), ScriptedGuard()),
    ("refused", 429, ScriptedUpstream([], status=429), ScriptedGuard()),
]


@pytest.mark.parametrize(("outcome", "status", "upstream", "guard"), ENDS, ids=range(len(ENDS)))
async def test_every_end_has_one_record_that_agrees_with_the_client(
    outcome: str, status: int, upstream: ScriptedUpstream, guard: ScriptedGuard
) -> None:
    async with weir(upstream, guard) as server:
        with recorded() as records:
            reply = await ask(server.url, stream=True)
        record = await records.next()
    assert len(records.lines) == 1
    assert (record["outcome"], record["status"]) == (outcome, status)
    assert reply.status == status
    assert reply.headers["x-weir-request-id"] == record["request_id"]
    assert reply.headers["x-weir-scanned"] == record["scanned"]
    delivered = read(reply.body).content if status == 200 and outcome != "cut" else ""
    assert sum(channel["delivered"] for channel in record["channels"]) == len(delivered)


async def test_a_bad_request_has_a_record_too() -> None:
    async with weir(ScriptedUpstream()) as server:
        with recorded() as records:
            await ask(server.url, http_request(b"{"))
        record: Any = await records.next()
    assert (record["outcome"], record["status"], record["error"]) == ("refused", 400, "invalid_json")
