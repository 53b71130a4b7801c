"""What a request may look like, what of it goes upstream, and what comes back of the upstream's headers."""

import asyncio
import json
import logging
from typing import Any

import pytest

from proxy.risk import RiskLevel
from tests.driver import WORDS, answer, body
from tests.fakes import RawUpstream, ScriptedGuard, ScriptedUpstream, framed, labels
from tests.servers import recorded, weir
from tests.sockets import ASK, CHAT_PATH, Reply, ask, connected, http_request, read_reply, timed

JSON = "application/json"


def upstream() -> ScriptedUpstream:
    return ScriptedUpstream([body({"content": "hi"})], content_type=JSON)


def refused(reply: Reply, status: int) -> None:
    assert reply.status == status, reply.raw
    assert reply.is_complete
    assert reply.headers["content-type"].startswith(JSON)
    assert reply.error.keys() >= {"message", "type", "param", "code"}


BAD_HEADERS: list[tuple[dict[str, str], int]] = [
    ({"Content-Type": "text/plain"}, 415),
    ({"Content-Type": ""}, 415),
    ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
    ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ({"Content-Type": "application/json; charset=utf-16"}, 415),
    ({"Content-Type": "application/json; charset=utf-7"}, 415),
    ({"Content-Encoding": "gzip"}, 415),
    ({"Content-Encoding": "br"}, 415),
    ({"Content-Encoding": "identity, gzip"}, 415),
]


@pytest.mark.parametrize(("headers", "status"), BAD_HEADERS)
async def test_only_plain_json_in_utf_8_is_read(headers: dict[str, str], status: int) -> None:
    async with weir(upstream()) as server:
        refused(await ask(server.url, http_request(headers=headers)), status)
        assert server.upstream.requests == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        '{"model":"m"}'.encode("utf-16"),
        b'{"model":"m","messages":[],"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x","\\u0063ontent":"y"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"seed":' + b"9" * 5000 + b"}",
        b'{"a":' * 100_000,
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x"}}]}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":0}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":129}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":"yes"}',
    ],
    ids=range(19),
)
async def test_a_body_that_readers_disagree_about_is_a_400(data: bytes) -> None:
    async with weir(upstream()) as server:
        refused(await ask(server.url, http_request(data)), 400)
        assert server.upstream.requests == []
        assert server.guard.slots == 0


async def test_a_body_too_large_is_refused_by_its_header() -> None:
    async with weir(upstream(), server__max_body_bytes=2048) as server:
        head = http_request(b"", headers={"Content-Length": "10000000000"})
        with timed():
            async with connected(server.url) as client:
                await client.send(head)
                refused(await client.reply(), 413)
        chunked = http_request(b"", headers={"Content-Length": "", "Transfer-Encoding": "chunked"})
        refused(await ask(server.url, chunked + b"1000\r\n" + b" " * 4096 + b"\r\n0\r\n\r\n"), 413)
        assert server.upstream.requests == []


@pytest.mark.parametrize("data", [b"", b'{"mod'])
async def test_a_body_that_comes_too_slowly_is_a_408_and_the_end(data: bytes) -> None:
    async with weir(upstream(), server__request_seconds=0.3) as server, connected(server.url) as client:
        with timed():
            await client.send(http_request(b"", headers={"Content-Length": "99"}) + data)
            raw = await client.closed()
    refused(read_reply(raw), 408)
    assert server.upstream.requests == []


async def test_a_body_whose_framing_breaks_is_refused() -> None:
    head = http_request(b"", headers={"Content-Length": "", "Transfer-Encoding": "chunked"})
    async with weir(upstream(), server__request_seconds=0.3) as server, connected(server.url) as client:
        await client.send(head + b'5\r\n{"mod\r\n')
        await asyncio.sleep(0.05)  # the handler waits for the rest of the body
        await client.send(b"zz\r\n")
        found = read_reply(await client.closed())
        assert found.status in (400, 408)
        assert server.upstream.requests == []


ROUTES = [
    "/", "/v1", "/v1/", "/v1/embeddings",
    "/v1/batches", "/v1/files", "/v1/images/generations", "/v1/audio/speech", "/v1/realtime", "/v1/models/x",
    "/v1/chat/completions/id", "/v1/chat/completions/id/messages", "/v1/fine_tuning/jobs", "/v1/threads",
    "/api/chat", "/api/generate", "/v1beta/models/x:generateContent", "/v1beta/models/x:streamGenerateContent",
    "/openai/deployments/x/chat/completions", "/chat/completions", "/config/update", "/metrics", "/admin",
]  # fmt: skip
ALIASES = [
    "//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/", "/v1/./chat/completions",
    "/./v1/chat/completions", "/v1/x/../chat/completions", "/../v1/chat/completions", "/v1/chat/%63ompletions",
    "/v1/chat%2fcompletions", "/v1/chat%2Fcompletions", "/v1/chat%5ccompletions", "/v1\\chat\\completions",
    "/v1/chat/completions;a=b", "/v1/chat/completions%00", "/v1/chat/completions%20", "/v1/chat/completions.",
    "/V1/chat/completions", "/v1/Chat/completions", "/v1/%2e/chat/completions", "/v1/%2e%2e/v1/chat/completions",
    "/v1/chat/completions%3f", "/v1/chat/completions%23", "/v1/chat/completions%252f", "/%76%31/chat/completions",
    "http://canary.test/v1/chat/completions", "/v1/chat/\u017fompletions".encode().decode("latin-1"),
]  # fmt: skip


@pytest.mark.parametrize("path", ROUTES + ALIASES)
async def test_only_listed_paths_exist(path: str) -> None:
    async with weir(upstream()) as server:
        for method in ("GET", "POST", "DELETE"):
            reply = await ask(server.url, http_request(method=method, path=path))
            assert reply.status in (400, 404, 405), (method, reply.raw)
            assert reply.status != 405 or method != "POST"
            refused(reply, reply.status)
        assert server.upstream.requests == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT_PATH, 405),
        ("PUT", CHAT_PATH, 405),
        ("DELETE", CHAT_PATH, 405),
        ("TRACE", CHAT_PATH, 405),
        ("OPTIONS", CHAT_PATH, 405),
        ("HEAD", CHAT_PATH, 405),
        ("POST", "/v1/models", 405),
        ("CONNECT", "canary.test:443", 400),
        ("OPTIONS", "*", 400),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_refused(method: str, path: str, status: int) -> None:
    async with weir(upstream()) as server, connected(server.url) as client:
        await client.send(http_request(method=method, path=path, headers={"Connection": "close"}))
        found = read_reply(await client.closed()).status
        assert found == status or (status == 400 and found in (404, 405))
        assert server.upstream.requests == []


@pytest.mark.parametrize(
    "raw",
    [
        http_request().replace(b"HTTP/1.1", b"HTTP/2.0"),
        http_request().replace(b"HTTP/1.1", b"HTTP/1.2"),
        http_request().replace(b"HTTP/1.1", b"HTTP/0.9"),
        http_request(headers={"Content-Length": "", "Transfer-Encoding": "chunked"}).replace(b"HTTP/1.1", b"HTTP/1.0"),
        http_request(headers={"Transfer-Encoding": "chunked"}),
        http_request(headers={"Content-Length": "+5"}),
        http_request(headers={"Transfer-Encoding": "xchunked", "Content-Length": ""}),
        http_request(headers={"X-A": "a\r\n folded"}),
        http_request(headers={"X-A": "a\x00b"}),
        http_request().replace(b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\nHost: localhost"),
        http_request().replace(b"Host:", b"Host :"),
        http_request(headers={"X-A": "y" * 20_000}),
        b"Bearer sk-canary\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 sk-canary\r\n\r\n",
    ],
    ids=range(14),
)
async def test_a_head_that_parsers_disagree_about_is_a_400_that_echoes_nothing(
    raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    smuggled = http_request(headers={"X-Smuggled": "yes"})
    async with weir(upstream()) as server, connected(server.url) as client:
        await client.send(raw + smuggled)
        reply = read_reply(await client.closed() if b"HTTP/" not in raw else (await client.reply()).raw)
        assert reply.status in (400, 431, 505)
        assert b"canary" not in reply.raw
        assert all(b"x-smuggled" not in str(seen["headers"]).lower().encode() for seen in server.upstream.requests)
    assert "canary" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_flood_of_garbage_writes_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    async with weir(upstream()) as server:
        for _ in range(40):
            assert (await ask(server.url, b"garbage sk-canary\r\n\r\n")).status == 400
    assert len([one for one in caplog.records if one.levelno >= logging.WARNING]) <= 20
    assert "canary" not in caplog.text


FORWARDED = {
    "authorization": "Bearer sk-client",
    "openai-organization": "org",
    "openai-project": "proj",
    "openai-beta": "x=1",
    "idempotency-key": "k1",
    "x-client-request-id": "r1",
    "x-stainless-lang": "python",
    "user-agent": "client/1",
    "traceparent": "00-1-2-01",
    "tracestate": "a=b",
    "http-referer": "https://app.test",
    "x-title": "App",
    "anthropic-version": "2023-06-01",
}
STRIPPED = {
    "cookie": "a=b",
    "x-forwarded-for": "1.2.3.4",
    "x-forwarded-host": "evil.test",
    "x-original-url": "/x",
    "x-rewrite-url": "/x",
    "forwarded": "for=1.2.3.4",
    "te": "trailers",
    "trailer": "x",
    "keep-alive": "5",
    "proxy-authorization": "Basic x",
    "x-portkey-custom-host": "http://canary.test",
    "x-unknown": "x",
    "accept-encoding": "gzip",
    "range": "bytes=0-1",
    "if-none-match": "x",
}


async def test_headers_pass_by_name_and_the_others_do_not() -> None:
    async with weir(upstream()) as server:
        await ask(server.url, http_request(headers=FORWARDED | STRIPPED))
        [seen] = server.upstream.requests
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert {name: headers[name] for name in FORWARDED} == FORWARDED
    assert not (STRIPPED.keys() - {"accept-encoding"}) & headers.keys()
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == JSON
    assert headers["host"] == server.upstream.url.removeprefix("http://")
    assert headers.keys() <= FORWARDED.keys() | {"accept-encoding", "content-type", "content-length", "host", "accept"}


async def test_our_key_goes_upstream_in_place_of_the_clients() -> None:
    theirs = {"authorization": "Bearer sk-client", "api-key": "sk-client", "x-api-key": "sk-client"}
    async with weir(upstream(), upstream__api_key="sk-ours") as server:
        for nominated in ("", "Authorization", "authorization, x-title"):
            reply = await ask(server.url, http_request(headers=theirs | {"Connection": nominated, "X-Title": "App"}))
            seen = server.upstream.requests[-1]["headers"]
            assert seen["authorization"] == "Bearer sk-ours"
            assert "sk-client" not in str(seen)
            assert ("x-title" in seen) == ("x-title" not in nominated)
            assert b"sk-ours" not in reply.raw


@pytest.mark.parametrize("name", ["authorization", "api-key", "x-api-key"])
async def test_a_clients_own_key_is_forwarded_where_there_is_none_of_ours(name: str) -> None:
    async with weir(upstream()) as server:
        await ask(server.url, http_request(headers={name: "sk-client"}))
        assert server.upstream.requests[0]["headers"][name] == "sk-client"


PASSED = {
    "x-request-id": "req_1",
    "openai-processing-ms": "12",
    "openai-version": "2020-10-01",
    "x-ratelimit-remaining-tokens": "9",
    "retry-after-ms": "5",
    "x-generation-id": "gen-1",
}
DROPPED = {
    "set-cookie": "tenant=a",
    "etag": "x",
    "digest": "x",
    "server": "nginx",
    "x-secret": "canary",
    "via": "1.1 x",
    "access-control-allow-origin": "*",
    "openai-note": "a text that says \u201cmore\u201d than an id does, canary!",
}


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_response_headers_pass_by_name_and_ours_are_added(is_streamed: bool) -> None:
    source = upstream() if not is_streamed else ScriptedUpstream(answer(WORDS))
    source.headers = PASSED | DROPPED
    async with weir(source, policy__name="house") as server:
        reply = await ask(server.url, stream=is_streamed)
    assert {name: reply.headers[name] for name in PASSED} == PASSED
    assert not (DROPPED.keys() - {"server"}) & reply.headers.keys()
    assert b"canary" not in reply.raw
    assert reply.headers["x-weir-request-id"].startswith("weir-")
    assert reply.headers["x-weir-guard"] == "scripted@0"
    assert reply.headers["x-weir-policy"] == "house"
    assert reply.headers["x-weir-scanned"] == "full"
    if is_streamed:
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        assert reply.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in reply.headers


async def test_one_tenants_cookie_does_not_reach_the_next() -> None:
    source = upstream()
    source.headers = {"set-cookie": "tenant=a; Path=/"}
    async with weir(source) as server:
        await ask(server.url)
        await ask(server.url)
        assert all("cookie" not in seen["headers"] for seen in source.requests)


@pytest.mark.parametrize(
    "query", ["", "?a=1&b=%20+%2B&&c", "?api-version=2024-10-21", "?x=%e2%82%ac&y=%zz;z", "?a=b?c"]
)
async def test_a_query_string_is_kept_to_the_byte(query: str) -> None:
    raw = http_request(path=CHAT_PATH + query)
    echo = RawUpstream(framed(body({"content": "hi"}), "length", JSON))
    async with weir(echo) as server:
        assert (await ask(server.url, raw)).status == 200
    assert echo.heads[0].split(b" ")[1] == (CHAT_PATH + query).encode()


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/openai/v1", "/openai/v1/chat/completions"),
        ("/a%2Fb", "/a%2Fb/chat/completions"),
        ("?key=1", "/v1/chat/completions?key=1"),
        ("/v1?api-version=2&x=%20", "/v1/chat/completions?api-version=2&x=%20"),
    ],
)
async def test_the_base_url_takes_any_form(base: str, path: str) -> None:
    echo = RawUpstream(framed(body({"content": "hi"}), "length", JSON))
    async with echo.running(), weir(ScriptedUpstream(), upstream__base_url=echo.url + base) as server:
        assert (await ask(server.url)).status == 200
        assert echo.heads[0].split(b" ")[1] == path.encode()


async def test_what_is_forwarded_is_what_was_judged() -> None:
    fields: Any = {"seed": 2**64, "temperature": 1.0, "top_p": 1, "user": "caf\u00e9 \u2028", "metadata": {"a": None}}
    async with weir(upstream()) as server:
        await ask(server.url, **fields)
        [seen] = server.upstream.requests
    assert json.loads(seen["body"]) == {**ASK, **fields}
    assert b"18446744073709551616" in seen["body"]
    assert b'"temperature":1.0' in seen["body"]


TRIES: list[Any] = [
    {"fields": {"guardrails": []}},
    {"fields": {"metadata": {"guardrails": {"disable": "true"}}}},
    {"fields": {"weir": {"on_flag": "monitor"}}},
    {"fields": {"policy": {"on_flag": "allow"}}},
    {"fields": {"model": "m;guard=off"}},
    {"fields": {"moderation": {"model": "m", "policy": {"output": {"mode": "score"}}}}},
    {"headers": {"x-weir-policy": "off"}},
    {"headers": {"x-weir-scanned": "none"}},
    {"headers": {"x-guard-mode": "off", "x_guard_mode": "off"}},
    {"path": f"{CHAT_PATH}?guard=off&policy=off"},
]


@pytest.mark.parametrize("attempt", TRIES, ids=range(len(TRIES)))
async def test_a_client_cannot_turn_the_guard_off(attempt: Any) -> None:
    guard = ScriptedGuard(labels("SSUU"))
    async with weir(ScriptedUpstream(answer(WORDS)), guard) as server:
        raw = http_request(
            json.dumps({**ASK, "stream": True, **attempt.get("fields", {})}).encode(),
            headers=attempt.get("headers"),
            path=attempt.get("path", CHAT_PATH),
        )
        reply = await ask(server.url, raw)
    assert b" three" not in reply.body
    assert reply.status == 400 or b"content_filter" in reply.body


async def test_more_than_the_admitted_are_turned_away_at_once() -> None:
    source = ScriptedUpstream(answer(WORDS), stall_at=4)
    async with weir(source, server__max_streams=1) as server, connected(server.url) as client:
        await client.send(http_request(stream=True))
        await client.read_until(b" two")
        with timed():
            reply = await ask(server.url, stream=True)
        assert len(source.requests) == 1
    refused(reply, 503)
    assert reply.headers["retry-after"] == "1"


async def test_no_key_and_no_text_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    prompt: Any = {"messages": [{"role": "user", "content": "canary prompt"}]}
    said = ["canary", " reply", " two"]
    for guard in (ScriptedGuard(), ScriptedGuard(labels("UU")), ScriptedGuard(prompt_level=RiskLevel.UNSAFE)):
        for chunks in (answer(said), answer(said)[:2], [b'data: {"canary"\n\n'], [b'data: {"error":"canary"}\n\n']):
            async with weir(ScriptedUpstream(chunks), guard, upstream__api_key="sk-canary") as server:
                with recorded() as records:
                    raw = http_request(headers={"authorization": "Bearer sk-canary"}, stream=True, **prompt)
                    reply = await ask(server.url, raw)
                    assert b"sk-canary" not in reply.raw
                    assert len(records.lines) == 1
    assert "canary" not in caplog.text


async def test_health_says_little() -> None:
    async with weir(upstream(), upstream__api_key="sk-canary") as server:
        alive = await ask(server.url, http_request(b"", method="GET", path="/healthz"))
        ready = await ask(server.url, http_request(b"", method="GET", path="/readyz"))
    assert (alive.status, alive.json) == (200, {"status": "ok"})
    assert (ready.status, ready.json) == (200, {"ready": True})
