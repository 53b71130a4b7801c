"""Endpoints: what a client reads for each way a request can end. More of it over sockets in e2e/."""

from typing import Any

import pytest

from proxy.guard.protocol import Health
from tests.driver import WORDS, answer, read
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream
from tests.servers import recorded, weir
from tests.sockets import Reply, ask, http_request


async def get(url: str, path: str) -> Reply:
    return await ask(url, http_request(b"", method="GET", path=path))


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
