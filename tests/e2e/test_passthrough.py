"""The real openai client on routes that pass unjudged: what it sends arrives, and it reads what comes back."""

import base64
import json
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from openai import AsyncOpenAI, NotFoundError, PermissionDeniedError

from tests.fakes import ScriptedUpstream
from tests.servers import Weir, weir

VECTOR = (0.25, -1.5, 3.0)
SOUND = bytes(range(256)) * 300
LINES = b'{"custom_id":"a","body":{"model":"m"}}\n' * 2000
FILE = {"id": "file-1", "object": "file", "bytes": len(LINES), "created_at": 1, "filename": "in.jsonl",
        "purpose": "batch", "status": "processed"}  # fmt: skip
BATCH = {"id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-1",
         "completion_window": "24h", "status": "validating", "created_at": 1}  # fmt: skip
EMBEDDINGS = {
    "object": "list",
    "model": "m",
    "data": [{"object": "embedding", "index": 0, "embedding": base64.b64encode(struct.pack("<3f", *VECTOR)).decode()}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}
JSON = "application/json"


@dataclass
class Provider(ScriptedUpstream):
    """Answers each route with its own type and body."""

    answers: Mapping[str, tuple[str, Any]] = field(default_factory=dict)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        kind, body = self.answers[f"{request.method} {request.path}"]
        chunks = [body] if isinstance(body, bytes) else [json.dumps(body).encode()]
        one = ScriptedUpstream(chunks, content_type=kind, requests=self.requests)
        return await one._answer(request)


ANSWERS: Mapping[str, tuple[str, Any]] = {
    "POST /v1/embeddings": (JSON, EMBEDDINGS),
    "POST /v1/files": (JSON, FILE),
    "GET /v1/files": (JSON, {"object": "list", "data": [FILE], "has_more": False}),
    "GET /v1/files/file-1": (JSON, FILE),
    "DELETE /v1/files/file-1": (JSON, {"id": "file-1", "object": "file", "deleted": True}),
    "GET /v1/files/file-1/content": ("application/octet-stream", LINES),
    "POST /v1/audio/transcriptions": (JSON, {"text": "hello there"}),
    "POST /v1/audio/speech": ("audio/mpeg", SOUND),
    "POST /v1/images/edits": (JSON, {"created": 1, "data": [{"b64_json": "aGk="}]}),
    "POST /v1/batches": (JSON, BATCH),
    "GET /v1/batches": (JSON, {"object": "list", "data": [BATCH], "has_more": False}),
    "POST /v1/batches/batch_1/cancel": (JSON, BATCH | {"status": "cancelling"}),
}


@asynccontextmanager
async def client_of(allow: str, **settings: Any) -> AsyncIterator[tuple[AsyncOpenAI, Weir]]:
    provider = Provider(answers=ANSWERS)
    async with (
        weir(provider, passthrough__allow=allow, **settings) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="sk-client", max_retries=0) as client,
    ):
        yield client, server


async def test_embeddings_arrive() -> None:
    async with client_of("embeddings") as (client, server):
        found = await client.embeddings.create(model="m", input=["hello"])
    assert tuple(found.data[0].embedding) == VECTOR
    assert json.loads(server.upstream.requests[0]["body"])["input"] == ["hello"]
    assert server.guard.fed == []


async def test_a_file_goes_up_is_listed_comes_down_and_is_deleted() -> None:
    async with client_of("files") as (client, server):
        made = await client.files.create(file=("in.jsonl", LINES), purpose="batch")
        assert (made.id, made.bytes) == ("file-1", len(LINES))
        assert [one.id async for one in client.files.list(purpose="batch")] == ["file-1"]
        assert (await client.files.content("file-1")).content == LINES
        assert (await client.files.delete("file-1")).deleted
        sent = server.upstream.requests[0]
        assert sent["headers"]["content-type"].startswith("multipart/form-data; boundary=")
        assert LINES in sent["body"]
        assert b'name="purpose"' in sent["body"]
        assert sent["headers"]["authorization"] == "Bearer sk-client"
        assert server.upstream.requests[1]["query"] == "purpose=batch"


async def test_sound_goes_up_and_comes_down_in_pieces() -> None:
    async with client_of("audio") as (client, server):
        heard = await client.audio.transcriptions.create(model="m", file=("a.mp3", SOUND))
        assert heard.text == "hello there"
        assert SOUND in server.upstream.requests[0]["body"]
        got = b""
        async with client.audio.speech.with_streaming_response.create(model="m", voice="alloy", input="hi") as speech:
            assert speech.headers["x-weir-scanned"] == "none"
            async for piece in speech.iter_bytes():
                got += piece
    assert got == SOUND


async def test_an_image_is_edited() -> None:
    async with client_of("images") as (client, server):
        found = await client.images.edit(model="m", image=("a.png", SOUND), prompt="a hat")
    assert found.data is not None
    assert found.data[0].b64_json == "aGk="
    assert SOUND in server.upstream.requests[0]["body"]


async def test_a_batch_is_made_listed_and_cancelled() -> None:
    async with client_of("batches") as (client, server):
        made = await client.batches.create(
            input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert made.id == "batch_1"
        assert [one.id async for one in client.batches.list()] == ["batch_1"]
        assert (await client.batches.cancel("batch_1")).status == "cancelling"
    assert server.upstream.requests[2]["body"] in (b"", b"{}")


async def test_what_is_not_allowed_raises_with_the_setting_that_would() -> None:
    async with client_of("files") as (client, server):
        with pytest.raises(NotFoundError, match="embeddings"):
            await client.embeddings.create(model="m", input="hello")
        with pytest.raises(NotFoundError, match="stored-completions") as caught:
            await client.chat.completions.retrieve("chatcmpl-1")
        assert "allow" in str(caught.value)
        assert server.upstream.requests == []


async def test_an_error_of_the_provider_is_the_clients_to_read() -> None:
    refusal = ScriptedUpstream([b'{"error":{"message":"not for you"}}'], status=403, content_type=JSON)
    async with (
        weir(refusal, passthrough__allow="files") as server,
        AsyncOpenAI(base_url=server.base_url, api_key="sk-client", max_retries=0) as client,
    ):
        with pytest.raises(PermissionDeniedError, match="not for you"):
            await client.files.retrieve("file-1")
