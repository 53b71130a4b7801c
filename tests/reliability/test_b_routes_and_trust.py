"""Section B of docs/reliability.md: which requests are let in, and what they may choose."""

import asyncio
import json
import os
import random
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from proxy.app import build_app
from proxy.config import load_settings
from proxy.entrance import PUBLIC
from proxy.handlers import STORED_RESPONSE
from proxy.identity import CREDENTIALS, digest_of
from proxy.model_handlers import MODELS
from proxy.passthrough import FAMILIES, ROUTES
from proxy.token_handlers import COUNT_TOKENS
from proxy.verdict_handlers import GUARDRAIL, MODERATIONS
from tests.doors import DOORS
from tests.driver import WORDS, answer, body, read
from tests.e2e.test_requests import ALIASES, TRIES
from tests.e2e.test_routes import aliases, body_for
from tests.fakes import ScriptedGuard, ScriptedUpstream, framed, labels
from tests.reliability.operator import OPERATOR, operated, told
from tests.reliability.upstreams import Echo
from tests.servers import Weir, weir
from tests.sockets import ASK, CHAT_PATH, Client, ask, connected, http_request, read_reply

JSON = "application/json"
REQUESTS = 20_000 if "WEIR_LONG" in os.environ else 400


def routed(**values: Any) -> set[str]:
    table = build_app(load_settings(overrides=values, environ={}), ScriptedGuard()).router.resources()
    return {resource.canonical for resource in table}


async def test_b1_every_route_that_reaches_the_upstream_reaches_the_guard_too() -> None:
    """By the table of routes itself, so that none is added in passing."""
    paths = routed()
    asked = {door.path for door in DOORS.values()}
    ours = {MODERATIONS, GUARDRAIL, COUNT_TOKENS, MODELS, "/healthz", "/readyz"}  # of a count only a number comes back
    assert paths == asked | ours | {STORED_RESPONSE.split(":")[0] + "}"}
    passed = {re.sub(r"\{(\d)\}", r"{id\1}", route.path) for route in ROUTES}
    assert routed(**{"passthrough.allow": ",".join(FAMILIES)}) == paths | passed
    guard = ScriptedGuard()
    for door in DOORS.values():
        async with weir(ScriptedUpstream([door.body("some words")], content_type=JSON), guard) as server:
            guard.fed.clear()
            assert (await ask(server.url, http_request(body_for(door.path), path=door.path))).status == 200
            assert len(server.upstream.requests) == 1
            assert len(guard.fed) >= 2  # the prompt and the answer


MORE_ALIASES = [
    "/v1/chat/completions/../completions", "/v1/chat/completions/.", "/v1/chat/./completions",
    "/v1/chat//completions", "/v1/chat/completions//", "/v1/chat/completions/%2e%2e/models",
    "/v1%2fchat%2fcompletions", "/v1/chat/completions%0a", "/v1/chat/completions%0d%0aX-A:b",
    "/v1/chat/completions%09", "/v1/chat/completions%c0%af", "/v1;x/chat/completions",
    "/v1/chat;x/completions", "/%2fv1/chat/completions", "/v1/chat/completions%5c..%5cmodels",
    "/v1/chat/completions$", "/v1/chat/completions,", "/v1/chat/completions~", "/v1/chat/completions*",
    "/v1/chat/completions@x", "/v1/chat/completions%E2%80%8B", "/v1/chat/completion%ef%bd%93",
]  # fmt: skip


async def test_b2_no_other_spelling_of_a_path_is_served() -> None:
    spellings = {*ALIASES, *MORE_ALIASES, *aliases(CHAT_PATH)} - {CHAT_PATH}
    assert len(spellings) >= 60
    async with weir(ScriptedUpstream([body({"content": "hi"})], content_type=JSON)) as server:
        for path in spellings:
            reply = await ask(server.url, http_request(path=path))
            assert reply.status in (400, 404), (path, reply.raw)
        assert server.upstream.requests == []
        assert server.guard.fed == []


MISLEADING: list[Mapping[str, str]] = [
    {"Host": "x/?"},
    {"Host": "x/#"},
    {"Host": "canary.test@x"},
    {"Host": "weir.test/v1/models?"},
    {"X-Original-URL": "/healthz"},
    {"X-Rewrite-URL": "/healthz"},
    {"X-Forwarded-Prefix": "/healthz"},
    {"X-Forwarded-Host": "canary.test"},
    {"X-Forwarded-Path": "/healthz", "X-Forwarded-Proto": "file"},
    {"X-HTTP-Method-Override": "GET"},
]


async def test_b3_nothing_but_the_request_line_picks_the_route() -> None:
    async with weir(ScriptedUpstream([body({"content": "hi"})], content_type=JSON)) as server:
        host = server.upstream.url.removeprefix("http://")
        for headers in MISLEADING:
            refused = await ask(server.url, http_request(path="/v1/embeddings", headers=headers))
            assert refused.status in (400, 403, 404)
            assert server.upstream.requests == []
            reply = await ask(server.url, http_request(headers=headers))
            assert reply.status in ((400, 403) if "Host" in headers else (200,))
            for seen in server.upstream.requests:
                assert (seen["path"], seen["headers"]["host"], seen["query"]) == (CHAT_PATH, host, "")
            server.upstream.requests.clear()


KEY = "weir-canary-key-of-alice"
KEYS = [{"name": "alice", "sha256": digest_of(KEY)}, {"name": "bob", "sha256": digest_of("weir-canary-key-of-bob")}]
OURS: Mapping[str, Any] = {"auth__keys": KEYS, "upstream__api_key": "sk-ours"}
BEARER = {"Authorization": f"Bearer {KEY}"}


async def test_b3_without_a_key_nothing_but_health_is_served_whatever_the_head_says() -> None:
    upstream = ScriptedUpstream([body({"content": "hi"})], content_type=JSON)
    async with weir(upstream, **OURS) as server:
        routes = [
            (route.method, route.resource.canonical.replace("{response_id}", "resp_1"))
            for route in build_app(load_settings(environ={}), ScriptedGuard()).router.routes()
            if route.resource
        ]
        for method, path in [*routes, ("POST", "/v1/embeddings"), ("GET", "/"), ("POST", "/reload")]:
            for headers in [{}, *MISLEADING]:
                reply = await ask(server.url, http_request(method=method, path=path, headers=headers))
                if reply.status != 400:  # two Host headers, or one that is none
                    assert reply.status == (200 if path in PUBLIC else 401), (path, headers, reply.raw)
        for host in (f"http://weir.test/healthz/..{CHAT_PATH}", f"http://healthz{CHAT_PATH}"):
            assert (await ask(server.url, http_request(path=host))).status in (400, 401, 404)
        assert server.upstream.requests == []
        assert server.guard.fed == []
        assert (await ask(server.url, http_request(headers=BEARER))).status == 200


def mutants(key: str) -> list[bytes]:
    """Heads with everything that is nearly a credential. What the server strips, spaces around a value, is none."""
    rng = random.Random(4)
    nearly = {key[:-1], key[1:], key + "x", key.upper(), key.swapcase(), key + ";", f"{key},{key}", f"'{key}'", key * 2,
              f"{key}' OR '1'='1", digest_of(key), "*", "null", "undefined", "true", key[::-1], f"{key}%00", f"{key}=",
              key.replace("a", "\u0430"), key + "\u200b", "\u00e9" + key, "x" * 7000}  # fmt: skip
    while len(nearly) < 480:
        at = rng.randrange(len(key))
        nearly.add(key[:at] + chr(rng.randrange(33, 127)) * rng.randrange(3) + key[at + 1 :])
    heads = [f"{name}{text}" for text in nearly - {key} for name in ("Authorization: Bearer ", "x-api-key: ")]
    heads += [
        f"Authorization: {scheme} {key}" for scheme in ("Basic", "Token", "Bearer:", "Bearer Bearer", "Negotiate")
    ]
    heads += [f"Authorization: {key}", "Authorization: Bearer", "x-api-key:", f"Cookie: api-key={key}"]
    heads += [f"Proxy-Authorization: Bearer {key}", f"x-weir-key: {key}", f"key: {key}"]
    heads += [f"Authorization: Bearer {key}\r\nx-api-key: wrong", f"x-api-key: {key}\r\nx-api-key: wrong"]
    heads += [f"Authorization: Bearer {key}\0", f"Authorization: Bearer {key}\r x", "x-api-key: " + "x" * 1_000_000]
    return [head.encode() for head in heads]


async def test_b4_no_credential_but_the_whole_key_is_taken_for_it() -> None:
    async with weir(ScriptedUpstream([body({"content": "hi"})], content_type=JSON), **OURS) as server:
        tried = mutants(KEY)
        assert len(tried) >= 900
        for head in tried:
            request = http_request().replace(b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\n" + head)
            reply = await ask(server.url, request)
            assert reply.status in (400, 401), head[:80]
            assert b"canary" not in reply.raw
        path = f"{CHAT_PATH}?api_key={KEY}&key={KEY}"
        assert (await ask(server.url, http_request(path=path))).status == 401
        assert server.upstream.requests == []
        assert (await ask(server.url, http_request(headers={"x-api-key": KEY}))).status == 200


@pytest.mark.parametrize("path", [*(door.path for door in DOORS.values()), MODELS])
async def test_b7_a_key_of_ours_never_goes_upstream(path: str) -> None:
    method = "GET" if path == MODELS else "POST"
    async with weir(ScriptedUpstream([b"{}"], content_type=JSON), **OURS) as server:
        for headers in (BEARER, {"x-api-key": KEY}, {"api-key": KEY, **BEARER}):
            await ask(server.url, http_request(body_for(path), method=method, path=path, headers=headers))
        assert len(server.upstream.requests) == 3
        for seen in server.upstream.requests:
            sent = [text for name, text in seen["headers"].items() if name.lower() in CREDENTIALS]
            assert sent in (["Bearer sk-ours"], ["sk-ours"])
            assert "canary" not in str(seen)


async def test_b17_a_keys_limit_holds_however_it_is_asked() -> None:
    keys = [KEYS[0] | {"max_streams": 10}, KEYS[1]]
    upstream = ScriptedUpstream(answer(WORDS), stall_at=1)
    async with weir(upstream, upstream__api_key="sk-ours", auth__keys=keys) as server:
        forms = [BEARER, {"AUTHORIZATION": f"bearer {KEY}"}, {"x-api-key": KEY}, {"api-key": f" {KEY} "}]
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(server.url)) for _ in range(50)]
            for number, client in enumerate(clients):
                await client.send(http_request(headers=forms[number % len(forms)], stream=True))
            heads = await asyncio.gather(*(head_of(client) for client in clients))
            refused = [head for head in heads if head.startswith(b"HTTP/1.1 429")]
            assert len(refused) == 40
            assert all(b"retry-after: 1" in head.lower() for head in refused)
            assert sum(head.startswith(b"HTTP/1.1 200") for head in heads) == 10
            other = await stack.enter_async_context(connected(server.url))
            await other.send(http_request(headers={"x-api-key": "weir-canary-key-of-bob"}, stream=True))
            assert (await head_of(other)).startswith(b"HTTP/1.1 200")


async def test_b12_a_rule_gives_a_key_its_policy_and_no_other_key() -> None:
    policies = {"lax": {"on_flag": "monitor"}}
    more = {"policies": policies, "rules": [{"policy": "lax", "keys": ["bob"]}]}
    async with weir(ScriptedUpstream(answer(WORDS)), ScriptedGuard(labels("SSUU")), **OURS, **more) as server:
        for key, is_cut in ((KEY, True), ("weir-canary-key-of-bob", False)):
            reply = await ask(server.url, http_request(headers={"x-api-key": key}, stream=True))
            assert (b"content_filter" in reply.body) is is_cut
            assert (b" three" in reply.body) is not is_cut


async def head_of(client: Client) -> bytes:
    await client.read_until(b"\r\n\r\n")
    return client.received


@pytest.mark.parametrize("path", [door.path for door in DOORS.values()])
async def test_b17_a_door_says_in_its_own_words_that_a_key_has_used_up_its_share(path: str) -> None:
    keys = [KEYS[0] | {"tokens_per_minute": 5}, KEYS[1] | {"requests_per_minute": 1}]
    [door] = [door for door in DOORS.values() if door.path == path]
    upstream = ScriptedUpstream([door.body("one two three four five six seven")], content_type=JSON)
    async with weir(upstream, upstream__api_key="sk-ours", auth__keys=keys) as server:
        for key, limit in ((KEY, "tokens_per_minute"), ("weir-canary-key-of-bob", "requests_per_minute")):
            request = http_request(body_for(path), path=path, headers={"x-api-key": key})
            assert (await ask(server.url, request)).status == 200
            reply = await ask(server.url, request)
            assert reply.status == 429
            assert int(reply.headers["retry-after"]) >= 1
            assert (reply.error["type"], reply.error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert reply.error["limit"] == limit
            assert ("type" in reply.json) is (path == "/v1/messages")


PAGES: list[Mapping[str, str]] = [
    {"Host": "evil.test"},
    {"Host": "evil.test:8080"},
    {"Host": "127.0.0.1.evil.test"},
    {"Host": "localhost.evil.test", "Origin": "http://localhost.evil.test"},
    {"Host": "evil@127.0.0.1:x"},
    {"Host": "", "X-Forwarded-Host": "127.0.0.1"},
    {"Origin": "https://evil.test"},
    {"Origin": "null"},
]


async def test_b13_a_page_that_gives_its_own_name_our_address_gets_nothing() -> None:
    upstream = ScriptedUpstream([body({"content": "hi"})], content_type=JSON)
    async with weir(upstream, passthrough__allow=["files"]) as server:
        asked = [("POST", door.path, body_for(door.path)) for door in DOORS.values()]
        for method, path, data in [*asked, ("GET", MODELS, b""), ("POST", "/v1/files", b"--x--")]:
            for page in PAGES:
                reply = await ask(server.url, http_request(data, method=method, path=path, headers=page))
                assert reply.status in (400, 403), (path, page, reply.raw)
                assert not [name for name in reply.headers if name.startswith("access-control")]
        for origin in ({"Origin": "https://evil.test"}, {}):
            simple = http_request(headers={"Content-Type": "text/plain", **origin})
            assert (await ask(server.url, simple)).status == (403 if origin else 415)
            preflight = http_request(b"", method="OPTIONS", headers={"Access-Control-Request-Method": "POST", **origin})
            reply = await ask(server.url, preflight)
            assert reply.status in (403, 405)
            assert not [name for name in reply.headers if name.startswith("access-control")]
        assert server.upstream.requests == []
        assert server.guard.fed == []
        assert (await ask(server.url, http_request(b"", method="GET", path="/healthz", headers=PAGES[0]))).status == 200
        for host in ("localhost:8080", "[::1]", "127.1.2.3", "host.docker.internal:8080", "app.localhost"):
            assert (await ask(server.url, http_request(headers={"Host": host}))).status == 200
        assert (await ask(server.url, http_request(headers={"Origin": "app://a-desktop-app"}))).status == 200


async def test_b13_with_keys_or_a_list_the_operator_says_by_which_names_it_is_asked() -> None:
    async def status(server: Weir, host: str) -> int:
        return (await ask(server.url, http_request(headers={"Host": host, **BEARER}))).status

    upstream = ScriptedUpstream([body({"content": "hi"})], content_type=JSON)
    async with weir(upstream, **OURS) as server:
        assert await status(server, "any.test") == 200
    hosts = "*.example.com, weir"
    async with weir(upstream, **OURS, server__allowed_hosts=hosts) as server:
        found = [await status(server, host) for host in ("A.example.com:8080", "weir", "example.com", "127.0.0.1")]
        assert found == [200, 200, 403, 403]
    async with weir(upstream, server__allowed_hosts="*") as server:
        assert await status(server, "any.test") == 200


async def test_b14_no_clients_key_opens_the_operators_door() -> None:
    async with operated(**OURS) as (server, admin):
        for path in ("/metrics", "/reload", "/config/update", "/healthz"):
            for headers in (BEARER, {"x-api-key": OPERATOR}, {"Authorization": "Bearer sk-ours"}):
                request = http_request(b"", method="GET", path=path, headers=headers)
                assert (await ask(admin, request)).status == 401
        # And the operator's opens no client's.
        assert (await ask(server.url, http_request(headers={"Authorization": f"Bearer {OPERATOR}"}))).status == 401


async def test_b15_metrics_tell_no_key_and_no_text() -> None:
    upstream = ScriptedUpstream([body({"content": "canary answer"})], content_type=JSON)
    async with operated(upstream, **OURS) as (server, admin):
        for headers in (BEARER, {"x-api-key": "wrong-canary"}):
            await ask(server.url, http_request(headers=headers, model="canary-model", user="canary-user"))
        found = await told(admin)
        assert b"weir_requests_total" in found
        assert b'key="alice"' in found
        assert b'weir_errors_total{code="invalid_api_key"} 1.0' in found
        assert b"canary" not in found
        assert digest_of(KEY).encode() not in found


async def test_b16_hundreds_of_models_make_no_new_series() -> None:
    async with operated(ScriptedUpstream(status=418, content_type=JSON), **OURS) as (server, admin):
        counts = []
        for start in (1, 2, 200):
            for number in range(start, 2 * start):
                await ask(server.url, http_request(headers=BEARER, model=f"m{number}", user=f"u{number}"))
            counts.append((await told(admin)).count(b"\n"))
        assert counts[1] == counts[2]


def choosing(url: str) -> list[tuple[dict[str, str], dict[str, Any], str]]:
    """Headers, fields and queries by which some proxy or other lets a request pick where it goes."""
    names = ["api_base", "base_url", "api_url", "custom_host", "user_config", "proxy", "litellm_params", "endpoint"]
    headers = ["x-portkey-custom-host", "x-portkey-config", "x-api-base", "x-forwarded-host", "x-upstream", "referer"]
    headers += ["x-target-url", "forwarded", "x-original-url", "x-litellm-api-base", "destination", "x-proxy-url"]
    nested: list[dict[str, Any]] = [{"metadata": {"api_base": url}}, {"model": url}, {"model": f"openai/{url}/m"}]
    deep: Any = url
    for name in ("base_url", "model_info", "litellm_params", "model_list", "user_config"):
        deep = {name: deep}
        nested.append(dict(deep))
    image = {"type": "image_url", "image_url": {"url": url}}
    nested.append({"messages": [{"role": "user", "content": [image]}]})
    nested.append({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": url}}]}]})
    return [
        *(({}, {name: url}, "") for name in names),
        *(({name: url}, {}, "") for name in headers),
        *(({}, fields, "") for fields in nested),
        *(({}, {}, f"?{name}={url}") for name in names),
    ]


async def test_b5_no_request_chooses_where_it_goes() -> None:
    canary = ScriptedUpstream()
    async with canary.running(), weir(ScriptedUpstream([body({"content": "hi"})], content_type=JSON)) as server:
        forms = choosing(f"{canary.url}/v1")
        assert len(forms) >= 36
        for headers, fields, query in forms:
            raw = http_request(json.dumps({**ASK, **fields}).encode(), headers=headers, path=CHAT_PATH + query)
            assert (await ask(server.url, raw)).status in (200, 400)
        assert canary.requests == []
        assert all(seen["path"] == CHAT_PATH for seen in server.upstream.requests)


NOTHING: tuple[Any, ...] = (False, {})
OFF: list[dict[str, Any]] = [
    *({"fields": {name: value}} for name in ("guard", "guardrails", "safety", "x_guard_mode") for value in NOTHING),
    *({"fields": {"metadata": {name: "off"}}} for name in ("guard", "policy", "weir", "moderation")),
    {"fields": {"stream_options": {"include_usage": True, "guard": False}}},
    {"fields": {"moderation": {"model": "m", "policy": {"input": {"mode": "score"}, "output": {"mode": "score"}}}}},
    *({"fields": {"model": model}} for model in ("m:unguarded", "m@off", "m?guard=0")),
    *({"headers": {name: "off"}} for name in ("x-weir-guard", "x-weir-mode", "x-guardrails", "x-no-moderation")),
    {"path": f"{CHAT_PATH}?on_flag=monitor"},
]


async def test_b12_no_client_turns_the_guard_off() -> None:
    tries = [*TRIES, *OFF]
    assert len(tries) >= 30
    async with weir(ScriptedUpstream(answer(WORDS)), ScriptedGuard(labels("SSUU"))) as server:
        for attempt in tries:
            data = json.dumps({**ASK, "stream": True, **attempt.get("fields", {})}).encode()
            raw = http_request(data, headers=attempt.get("headers"), path=attempt.get("path", CHAT_PATH))
            reply = await ask(server.url, raw)
            assert b" three" not in reply.body
            assert reply.status == 400 or b"content_filter" in reply.body, attempt


EVIL = framed(body({"content": "EVIL"}), "length", JSON)


@pytest.mark.parametrize("extra", [b"", EVIL, EVIL[:30]], ids=["clean", "an answer more", "a part of one"])
async def test_b18_nobody_gets_the_answer_of_another(extra: bytes) -> None:
    """One in ten leaves at any moment, and the upstream adds what nobody asked for."""
    rng = random.Random(18)
    upstream = Echo(extra=extra)
    async with weir(upstream, upstream__max_connections=8) as server:

        async def one(number: int) -> None:
            nonce = f"nonce {number} of {rng.randrange(10**9)}."
            async with connected(server.url) as client:
                await client.send(http_request(user=nonce, stream=number % 2 == 0))
                if rng.random() < 0.1:
                    await asyncio.sleep(rng.random() * 0.02)
                    client.leave(reset=rng.random() < 0.5)
                    return
                reply = read_reply((await client.reply()).raw)
            assert b"EVIL" not in reply.raw
            assert reply.status == 502 if reply.status != 200 else nonce in spoken(reply.body), reply.raw
            found[reply.status] = found.get(reply.status, 0) + 1

        found: dict[int, int] = {}
        for start in range(0, REQUESTS, 40):
            async with asyncio.TaskGroup() as group:
                for number in range(start, start + 40):
                    group.create_task(one(number))
    assert found[200] > REQUESTS * 0.5
    assert extra or found.keys() == {200}


def spoken(data: bytes) -> str:
    if data.startswith(b"{"):
        return str(json.loads(data)["choices"][0]["message"]["content"])
    return read(data).content
