"""docs/limits.md: each limit is met over a socket, tells what the page says, and is counted by its own name alone."""

import ast
import asyncio
import importlib
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from proxy import connections
from proxy.auth_settings import KeySettings
from proxy.guard.protocol import GuardOverloaded
from proxy.identity import digest_of
from proxy.limits import Limit
from proxy.setting_names import is_known
from tests.driver import DONE, WORDS, answer, chunk
from tests.fakes import ScriptedGuard, ScriptedUpstream
from tests.reliability.operator import operated, told
from tests.reliability.test_page import TESTS
from tests.sockets import Client, Reply, ask, connected, http_request
from tests.test_architecture import MODULES, imported, tree_of

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
TABLE = {row[0].strip("`"): row for row in (re.findall(r"[^|]+", line) for line in PAGE.splitlines()) if len(row) == 3}
ROWS = {name.strip().strip("`"): [cell.strip() for cell in row] for name, row in TABLE.items()}
CLOSED = "closed"

# What each hit takes of a server, and what a client of it was told.
Told = tuple[int, str | None] | str
Hit = Callable[[str], Awaitable[Told]]


def told_by(reply: Reply) -> Told:
    """Of an answer that had begun, the code within it."""
    if reply.status != 200:
        return reply.status, reply.error["code"]
    if not reply.is_complete and b"event" not in reply.body and b"data: " not in reply.body:
        return CLOSED
    events = [json.loads(line[6:]) for line in reply.body.decode().split("\n") if line.startswith('data: {"error"')]
    return 200, events[-1]["error"]["code"]


def asking(raw: bytes | None = None, **fields: Any) -> Hit:
    async def hit(url: str) -> Told:
        return told_by(await ask(url, raw, **fields))

    return hit


def posting(body: Any, path: str = "/v1/chat/completions", **headers: str) -> Hit:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return asking(
        http_request(data, path=path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    )


def closing(use: Callable[[Client], Awaitable[None]], **options: Any) -> Hit:
    """What `use` does to a connection ends it."""

    async def hit(url: str) -> Told:
        async with asyncio.timeout(60), connected(url, **options) as client:
            await use(client)
            await client.closed()
            return CLOSED

    return hit


async def second_of_two(url: str) -> Told:
    """A request that comes while another runs."""
    async with connected(url) as first:
        await first.send(http_request(stream=True))
        await first.read_until(b"one")
        return told_by(await ask(url))


async def while_late(url: str) -> Told:
    """A request that comes while another runs, and the event loop has been late for long."""

    async def be_late() -> None:
        while True:
            time.sleep(0.02)  # noqa: ASYNC251 (the loop is to be held up)
            await asyncio.sleep(0)

    async with connected(url) as first:
        await half_a_body(first)
        late = asyncio.get_running_loop().create_task(be_late())
        try:
            async with asyncio.timeout(30):
                while (found := await ask(url, stream=True)).status == 200:
                    pass
        finally:
            late.cancel()
    return told_by(found)


async def second_connection(url: str) -> Told:
    async with connected(url) as first:
        await first.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await first.read_until(b"ok")
        async with connected(url) as second:
            return CLOSED if await second.closed() == b"" else "let in"


async def after_another(url: str) -> Told:
    await ask(url, http_request(headers={"Authorization": "Bearer k"}))
    return told_by(await ask(url, http_request(headers={"Authorization": "Bearer k"})))


async def half_a_body(client: Client) -> None:
    await client.send(http_request()[:-5])


async def half_a_head(client: Client) -> None:
    await client.send(b"GET / HT")


async def never_read(client: Client) -> None:
    await client.send(http_request(stream=True))
    await UNREAD.left.wait()


def keyed(**limits: Any) -> Mapping[str, Any]:
    return {"auth__keys": [{"name": "a", "sha256": digest_of("k"), **limits}]}


UNREAD = ScriptedUpstream([chunk({"content": " word" * 2000})] * 2000)
SLOW = {"upstream": ScriptedUpstream(answer(WORDS), pause=0.3)}
SILENT = {"upstream": ScriptedUpstream(answer(WORDS), first_byte_delay=30)}
STALLS = ScriptedUpstream(answer(WORDS), stall_at=3)
LONG_EVENT = ScriptedUpstream([chunk({"content": "x" * 5000})])
BODY = ScriptedUpstream([b'{"x": "' + b"x" * 5000 + b'"}'], content_type="application/json")
CALLS = [{"index": number, "id": "c", "type": "function", "function": {"name": "f"}} for number in range(100)]
MANY = [chunk({"tool_calls": CALLS}, index=number) for number in range(6)]
SAID = {"role": "user", "content": "x"}
PARTS = {"role": "user", "content": [{"type": "text", "text": ""}] * 4097}
FILES = {"passthrough__allow": "files"}
UPLOAD = http_request(b"x" * 2000, path="/v1/files")

# What the server is given, and what meets the limit.
HITS: dict[Limit, tuple[Mapping[str, Any], Hit]] = {
    Limit.CONNECTIONS: ({"server__max_connections": 1}, second_connection),
    Limit.ADDRESS: ({"server__max_connections_per_address": 1}, second_connection),
    Limit.HEAD: ({}, posting({}, x_long="x" * 9000)),
    Limit.HEADERS: ({}, posting({}, **{f"x_{number}": "x" for number in range(200)})),
    Limit.BODY: ({"server__max_body_bytes": 1024}, posting({"x": "x" * 2000})),
    Limit.BODY_SECONDS: ({"server__request_seconds": 0.1}, closing(half_a_body)),
    Limit.DEPTH: ({"server__max_json_depth": 8}, posting(b'{"a":' + b"[" * 20 + b"]" * 20 + b"}")),
    Limit.VALUES: ({}, posting(b'{"a":[' + b"0," * 200_000 + b"0]}")),
    Limit.BRACKETS: ({}, posting(b"[" * 400_001)),
    Limit.KEY_CHARACTERS: ({}, posting({"k" * 2000: 1})),
    Limit.MESSAGES: ({"server__max_messages": 2}, posting({"model": "m", "messages": [SAID] * 3})),
    Limit.CHOICES: ({"server__max_choices": 2}, asking(n=3)),
    Limit.PARTS: ({}, posting({"model": "m", "messages": [PARTS]})),
    Limit.TOOLS: ({}, asking(tools=[{"type": "function", "function": {"name": "f"}}] * 257)),
    Limit.INPUTS: ({}, posting({"model": "m", "input": ["x"] * 1025}, "/v1/moderations")),
    Limit.UPLOAD: ({**FILES, "passthrough__max_upload_bytes": 1024}, asking(UPLOAD)),
    Limit.UPLOAD_IDLE: ({**FILES, "passthrough__idle_seconds": 0.1}, asking(UPLOAD[:-1])),
    Limit.STREAMS: ({**SLOW, "server__max_streams": 1}, second_of_two),
    Limit.LAG: ({"upstream": ScriptedUpstream(answer(WORDS)), "server__max_lag_seconds": 0.01}, while_late),
    Limit.KEY_REQUESTS: (keyed(requests_per_minute=1), after_another),
    Limit.KEY_TOKENS: (keyed(tokens_per_minute=1), after_another),
    Limit.POOL: ({**SLOW, "upstream__max_connections": 1, "upstream__connect_seconds": 0.1}, second_of_two),
    Limit.FIRST_BYTE: ({**SILENT, "upstream__first_byte_seconds": 0.1}, asking()),
    Limit.IDLE: ({"upstream": STALLS, "upstream__idle_seconds": 0.2}, asking(stream=True)),
    Limit.TOTAL: ({"upstream": STALLS, "upstream__total_seconds": 0.2}, asking(stream=True)),
    Limit.EVENT: ({"upstream": LONG_EVENT, "upstream__max_event_bytes": 1024}, asking(stream=True)),
    Limit.ANSWER_BODY: ({"upstream": BODY, "upstream__max_body_bytes": 1024}, asking()),
    Limit.PASSED_ANSWER: (
        {"upstream": BODY, "passthrough__max_answer_bytes": 1024, **FILES},
        asking(http_request(b"", method="GET", path="/v1/files", headers={"Content-Type": ""})),
    ),
    Limit.HELD: ({"upstream": ScriptedUpstream([chunk({"content": "x" * ((4 << 20) + 1)})]),
                  "upstream__max_event_bytes": 8 << 20}, asking(stream=True)),
    Limit.CHANNELS: ({"upstream": ScriptedUpstream([*MANY, DONE])}, asking(stream=True, n=6)),
    Limit.VERDICT: ({"guard": ScriptedGuard(prompt_fault="hang"), "guard__verdict_seconds": 0.1,
                     "guard__admission_seconds": 0.1}, asking()),
    Limit.ADMISSION: ({"guard": ScriptedGuard(fails_after=-1, error=GuardOverloaded("full"))}, asking()),
    Limit.WINDOW: ({"guard": ScriptedGuard(window=64)}, posting({"model": "m", "messages": [
        {"role": "user", "content": "one two " * 50}]})),
    Limit.SEND: ({"upstream": UNREAD, "server__send_seconds": 0.3, "guard": ScriptedGuard(fails_after=0),
                  "guard__on_failure": "open"}, closing(never_read, receive_buffer=4096)),
}  # fmt: skip
# Met by tests of their own: they take a clock, a pool or the end of a server.
ELSEWHERE = {
    Limit.HEAD_SECONDS: "test_a_head_that_does_not_end_is_counted",
    Limit.KEY_STREAMS: "test_b17_a_keys_limit_holds_however_it_is_asked",
    Limit.ASIDE: "test_who_finds_no_thread_in_time_is_refused",
    Limit.CONNECT: "test_a_connection_that_does_not_come_about_is_counted",
    Limit.DRAIN: "test_k1_a_signal_lets_answers_finish_and_tells_the_rest",
}


def counted(metrics: bytes) -> dict[str, float]:
    found = re.findall(r'^weir_limits_total{limit="([^"]+)"} (\S+)$', metrics.decode(), re.MULTILINE)
    return {name: float(count) for name, count in found}


@pytest.mark.parametrize("limit", HITS)
async def test_a_limit_is_told_as_the_page_says_and_counted_by_its_name(limit: Limit) -> None:
    given, hit = HITS[limit]
    async with operated(**given) as (server, operator):
        found = await hit(server.url)
        async with asyncio.timeout(20):
            while not (seen := counted(await told(operator))):  # noqa: ASYNC110 (a number that others change)
                await asyncio.sleep(0.02)
    assert seen == {limit: 1.0}
    outcome = ROWS[limit][2]
    if isinstance(found, str):
        assert found in outcome
    elif found[0] == 200:  # the answer had begun
        assert f"`{found[1]}`, or cut off" in outcome
    else:
        assert outcome.startswith(f"{found[0]} `{found[1]}`" if found[1] else str(found[0]))


async def test_a_head_that_does_not_end_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_CONNECTION_SECONDS", 0.3)
    async with operated() as (server, operator):
        assert await closing(half_a_head)(server.url) == CLOSED
        assert counted(await told(operator)) == {Limit.HEAD_SECONDS: 1.0}


async def test_a_connection_that_does_not_come_about_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody shakes hands
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        async with operated(upstream__base_url=url, upstream__connect_seconds=0.1) as (server, operator):
            assert told_by(await ask(server.url)) == (502, "upstream_unreachable")
            assert counted(await told(operator)) == {Limit.CONNECT: 1.0}


def test_every_limit_is_on_the_page_met_by_a_test_and_one_that_can_be_set_or_is_a_constant() -> None:
    names = {name for name in ROWS if name in {*Limit} or ("." in name and "/" not in name)}
    assert names == {*Limit}
    assert {*HITS} | {*ELSEWHERE} == {*Limit}
    assert {*ELSEWHERE.values()} <= TESTS
    for limit in Limit:
        section, _, key = limit.rpartition(".")
        if section == "auth.keys":
            assert key in KeySettings.model_fields
        elif section:
            assert is_known((section, key)), limit
        else:
            [place] = re.findall(r"`proxy/(\w+)\.py`", ROWS[limit][1])
            assert hasattr(importlib.import_module(f"proxy.{place}"), limit.upper()), limit


HANDLERS = ("handlers", "verdict_handlers", "token_handlers", "passthrough_handlers", "model_handlers")


def test_nothing_on_a_requests_way_waits_that_is_not_on_the_page() -> None:
    """Who imports asyncio, aiohttp or our own future and awaits may wait for others than ourselves; all else awaits
    those."""
    seen: set[str] = set()
    ahead = [f"proxy.{name}" for name in HANDLERS]
    while ahead:
        seen.add(name := ahead.pop())
        ahead += imported(name) & MODULES.keys() - seen
    ways = [
        name for name in seen if name.count(".") == 1 and {"asyncio", "aiohttp", "proxy.guard.answer"} & imported(name)
    ]
    waiting = {name for name in ways if any(type(node).__name__ == "Await" for node in walk(name))}
    listed = re.findall(r"`(proxy/[\w*]+\.py)`", PAGE.partition("## Where requests wait")[2])
    paths = [f"{name.replace('.', '/')}.py" for name in waiting]
    assert [path for path in paths if not any(fnmatch(path, place) for place in listed)] == []
    assert [place for place in listed if not any(fnmatch(path, place) for path in paths)] == []


def walk(module: str) -> Any:
    return ast.walk(tree_of(MODULES[module]))
