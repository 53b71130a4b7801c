"""What passes unjudged: to the byte, within its limits, at the pace of the slower side, and nobody's key with it."""

import asyncio
import json
from typing import Any

import pytest

from proxy.config import ConfigError, load_settings
from proxy.identity import digest_of
from tests.fakes import RawUpstream, ScriptedUpstream, framed
from tests.servers import recorded, weir, weir_before
from tests.sockets import PATIENCE_SECONDS, ask, connected, http_request, timed
from tests.test_upload import BINARY, FORM, UPLOAD, chunked

ALL = (
    "embeddings,files,uploads,audio,images,batches,vector-stores,stored-completions,moderations-upstream,"
    "message-batches,count-tokens"
)


async def test_an_upload_arrives_as_it_was_sent_with_its_type_and_length() -> None:
    upstream = ScriptedUpstream([b'{"id":"file-1"}'], content_type="application/json")
    async with weir(upstream, passthrough__allow="files") as server:
        with recorded() as records:
            reply = await ask(server.url, http_request(UPLOAD, path="/v1/files?a=%2f&b", headers=FORM))
        record = await records.next()
        assert (await ask(server.url, chunked(UPLOAD, path="/v1/files", headers=FORM))).status == 200
    assert (reply.status, reply.body) == (200, b'{"id":"file-1"}')
    assert reply.headers["x-weir-scanned"] == "none"
    assert reply.headers["x-weir-request-id"] == record["request_id"]
    whole, parts = upstream.requests
    assert (whole["method"], whole["path"], whole["query"], whole["body"]) == ("POST", "/v1/files", "a=%2f&b", UPLOAD)
    assert whole["headers"]["content-type"] == FORM["Content-Type"]
    assert whole["headers"]["content-length"] == str(len(UPLOAD))
    assert parts["body"] == UPLOAD
    assert "content-length" not in parts["headers"]
    assert server.guard.fed == []
    told = {name: record[name] for name in ("passthrough", "endpoint", "outcome", "status", "scanned", "upstream")}
    assert told == {
        "passthrough": "files", "endpoint": "/v1/files", "outcome": "complete", "status": 200, "scanned": "none",
        "upstream": "default",
    }  # fmt: skip
    assert (record["uploaded_bytes"], record["downloaded_bytes"]) == (len(UPLOAD), 15)


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_a_binary_answer_arrives_as_it_was_sent(framing: str) -> None:
    upstream = RawUpstream(framed(BINARY, framing, "audio/mpeg; x=1"))
    async with weir(upstream, passthrough__allow="audio") as server:
        reply = await ask(server.url, http_request(path="/v1/audio/speech"))
    assert (reply.status, reply.body, reply.is_complete) == (200, BINARY, True)
    assert reply.headers["content-type"] == "audio/mpeg; x=1"
    assert ("content-length" in reply.headers) == (framing == "length")


async def test_every_route_reaches_its_own_path_and_its_ids_stay() -> None:
    upstream = ScriptedUpstream([b"{}"], content_type="application/json")
    async with weir(upstream, passthrough__allow=ALL) as server:
        with recorded() as records:
            for method, path in (
                ("DELETE", "/v1/files/file-A_1"),
                ("GET", "/v1/vector_stores/vs_1/files/file-2/content"),
                ("POST", "/v1/batches/batch_1/cancel"),
            ):
                assert (await ask(server.url, http_request(b"", method=method, path=path))).status == 200
                assert (upstream.requests[-1]["method"], upstream.requests[-1]["path"]) == (method, path)
                assert upstream.requests[-1]["body"] == b""
    assert [json.loads(line)["endpoint"] for line in records.lines] == [
        "/v1/files/{0}",
        "/v1/vector_stores/{0}/files/{1}/content",
        "/v1/batches/{0}/cancel",
    ]


async def test_headers_and_keys_go_as_on_judged_routes() -> None:
    upstream = ScriptedUpstream([b"{}"], headers={"x-request-id": "r1", "set-cookie": "a=b", "x-odd": "canary"})
    headers = {"Authorization": "Bearer sk-client", "Cookie": "a=b", "X-Odd": "1", "OpenAI-Beta": "x"}
    async with weir(upstream, passthrough__allow=ALL, upstream__api_key="sk-ours") as server:
        reply = await ask(server.url, http_request(path="/v1/embeddings", headers=headers))
        await ask(server.url, http_request(path="/v1/messages/count_tokens", headers=headers))
    seen = upstream.requests[0]["headers"]
    assert (seen["authorization"], seen["openai-beta"]) == ("Bearer sk-ours", "x")
    assert not {"cookie", "x-odd"} & {name.lower() for name in seen}
    assert upstream.requests[1]["headers"]["x-api-key"] == "sk-ours"
    assert "sk-client" not in str(upstream.requests)
    settings: dict[str, Any] = {
        "passthrough__allow": "files",
        "upstream__api_key": "sk-ours",
        "upstream__dialect": "anthropic",
    }
    async with weir(upstream, **settings) as server:
        await ask(server.url, http_request(UPLOAD, path="/v1/files", headers=headers))
    assert upstream.requests[2]["headers"]["x-api-key"] == "sk-ours"
    assert "authorization" not in upstream.requests[2]["headers"]
    assert reply.headers["x-request-id"] == "r1"
    assert not {"set-cookie", "x-odd"} & reply.headers.keys()


async def test_a_key_of_ours_opens_the_route_and_goes_no_further() -> None:
    file = f"""
[passthrough]
allow = ["embeddings"]
[upstream]
base_url = "{{a}}"
[[auth.keys]]
name = "app"
sha256 = "{digest_of("weir-canary")}"
"""
    upstream = ScriptedUpstream([b"{}"])
    async with weir_before({"a": upstream}, file) as server:
        assert (await ask(server.url, http_request(path="/v1/embeddings"))).status == 401
        assert upstream.requests == []
        with recorded() as records:
            headers = {"Authorization": "Bearer weir-canary"}
            assert (await ask(server.url, http_request(path="/v1/embeddings", headers=headers))).status == 200
        assert (await records.next())["key"] == "app"
    assert "canary" not in str(upstream.requests)


@pytest.mark.parametrize(
    ("status", "said", "is_kept_back"),
    [
        (400, b'{"error":{"message":"bad purpose"}}', False),
        (400, b'{"error":{"message":"your key sk-canary"}}', True),
        (401, b'{"error":{"message":"wrong key sk-c***"}}', True),
        (500, b"x" * (1 << 17), True),  # too long to be sure of
    ],
)
async def test_an_error_about_our_key_is_kept_back(status: int, said: bytes, is_kept_back: bool) -> None:
    upstream = ScriptedUpstream([said], status=status, content_type="application/json", headers={"retry-after": "7"})
    async with weir(upstream, passthrough__allow="files", upstream__api_key="sk-canary") as server:
        reply = await ask(server.url, http_request(UPLOAD, path="/v1/files", headers=FORM))
    assert (reply.status, reply.headers["retry-after"]) == (status, "7")
    assert (reply.body != said) == is_kept_back
    assert b"canary" not in reply.raw
    upstream.requests.clear()
    async with weir(upstream, passthrough__allow="files") as server:  # the client's own key: its own error
        assert (await ask(server.url, http_request(UPLOAD, path="/v1/files", headers=FORM))).body == said


async def test_an_answer_too_large_is_broken_off() -> None:
    upstream = ScriptedUpstream([b"x" * 900] * 10, content_type="audio/mpeg")
    async with weir(upstream, passthrough__allow="audio", passthrough__max_answer_bytes=5000) as server:
        with recorded() as records:
            reply = await ask(server.url, http_request(path="/v1/audio/speech"))
        record = await records.next()
    assert (reply.status, reply.is_complete) == (200, False)
    assert len(reply.body) <= 5000
    assert (record["outcome"], record["error"]) == ("error", "an answer of more than 5000 bytes")


@pytest.mark.parametrize("resets", [False, True])
async def test_an_upstream_that_breaks_is_told_and_no_end_is_made_up(resets: bool) -> None:
    broken = framed(BINARY, "length", "audio/mpeg")[:-10]
    async with weir(RawUpstream(broken, resets=resets), passthrough__allow="audio") as server:
        with recorded() as records:
            reply = await ask(server.url, http_request(path="/v1/audio/speech"))
        record = await records.next()
    assert not reply.is_complete
    assert record["outcome"] in ("error", "refused")
    async with weir(RawUpstream(framed(BINARY, "chunked", "audio/mpeg")[:-9]), passthrough__allow="audio") as server:
        reply = await ask(server.url, http_request(path="/v1/audio/speech"))
    assert (reply.status, reply.is_complete) == (200, False)


async def test_an_answer_that_stalls_is_broken_off_at_the_idle_deadline() -> None:
    upstream = ScriptedUpstream([b"x", b"y"], stall_at=1, content_type="audio/mpeg")
    async with weir(upstream, passthrough__allow="audio", upstream__idle_seconds=0.2) as server:
        with timed():
            reply = await ask(server.url, http_request(path="/v1/audio/speech"))
    assert (reply.body, reply.is_complete) == (b"x", False)


async def test_a_client_that_does_not_read_stops_the_upstream_and_is_let_go() -> None:
    upstream = ScriptedUpstream([b"x" * (1 << 16)] * 1000, content_type="audio/mpeg")
    async with weir(upstream, passthrough__allow="audio", server__send_seconds=0.3) as server:
        with recorded() as records:
            async with connected(server.url, receive_buffer=4096) as client:
                await client.send(http_request(path="/v1/audio/speech"))
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await upstream.left.wait()
        record = await records.next()
    assert record["outcome"] == "client_gone"
    assert record["downloaded_bytes"] < 16 << 20  # of 64 MiB: what the sockets hold


async def test_it_goes_to_the_default_upstream_or_the_one_that_is_named() -> None:
    file = """
[passthrough]
allow = ["embeddings"]
{more}
[[upstream]]
name = "a"
base_url = "{a}"
models = ["gpt-*"]
[[upstream]]
name = "b"
base_url = "{b}"
"""
    for more, expected in (("", "b"), ('upstream = "a"', "a")):
        upstreams = {name: ScriptedUpstream([name.encode()]) for name in ("a", "b")}
        async with weir_before(upstreams, file.replace("{more}", more)) as server:
            with recorded() as records:
                reply = await ask(server.url, http_request(path="/v1/embeddings", model="gpt-1"))
            assert reply.body.decode() == (await records.next())["upstream"] == expected


def test_an_upstream_that_is_not_there_is_refused() -> None:
    values = {"upstream.base_url": "http://h", "passthrough.upstream": "x"}
    with pytest.raises(
        ConfigError, match=r'^passthrough.upstream: \[passthrough\] upstream names no upstream, "x"; there'
    ):
        load_settings(None, values, {})


@pytest.mark.parametrize("value", ["embedding", "files,", "*"])
def test_a_family_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^WEIR_PASSTHROUGH__ALLOW: \[passthrough\] allow must be "):
        load_settings(None, {}, {"WEIR_PASSTHROUGH__ALLOW": value})
