"""Every route of OpenAI, Anthropic, Gemini and Ollama: judged, answered by us, or a 404. None passes by accident."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from proxy import passthrough
from proxy.verdict_handlers import GUARDRAIL, MODERATIONS
from tests.doors import DOORS
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream
from tests.servers import Weir, weir
from tests.sockets import ask, connected, http_request, read_reply

METHODS = ("GET", "POST", "DELETE")
OPENAI = """
/v1/chat/completions /v1/chat/completions/id /v1/chat/completions/id/messages /v1/completions /v1/responses
/v1/responses/id /v1/responses/id/cancel /v1/responses/id/input_items /v1/responses/input_tokens
/v1/responses/compact /v1/conversations /v1/conversations/id /v1/conversations/id/items
/v1/conversations/id/items/id /v1/embeddings /v1/moderations /v1/models /v1/models/id /v1/files /v1/files/id
/v1/files/id/content /v1/uploads /v1/uploads/id/parts /v1/uploads/id/complete /v1/uploads/id/cancel /v1/batches
/v1/batches/id /v1/batches/id/cancel /v1/fine_tuning/jobs /v1/fine_tuning/jobs/id /v1/fine_tuning/jobs/id/events
/v1/fine_tuning/jobs/id/checkpoints /v1/fine_tuning/alpha/graders/run /v1/fine_tuning/alpha/graders/validate
/v1/images/generations /v1/images/edits /v1/images/variations /v1/audio/speech /v1/audio/transcriptions
/v1/audio/translations /v1/audio/voices /v1/videos /v1/videos/id /v1/videos/id/content /v1/videos/id/remix
/v1/realtime /v1/realtime/sessions /v1/realtime/client_secrets /v1/realtime/transcription_sessions
/v1/realtime/calls /v1/realtime/calls/id/accept /v1/assistants /v1/assistants/id /v1/threads /v1/threads/id
/v1/threads/id/messages /v1/threads/id/messages/id /v1/threads/runs /v1/threads/id/runs /v1/threads/id/runs/id
/v1/threads/id/runs/id/steps /v1/threads/id/runs/id/submit_tool_outputs /v1/vector_stores /v1/vector_stores/id
/v1/vector_stores/id/search /v1/vector_stores/id/files /v1/vector_stores/id/files/id
/v1/vector_stores/id/files/id/content /v1/vector_stores/id/file_batches /v1/vector_stores/id/file_batches/id
/v1/vector_stores/id/file_batches/id/cancel /v1/vector_stores/id/file_batches/id/files
/v1/containers /v1/containers/id/files /v1/containers/id/files/id/content
/v1/evals /v1/evals/id/runs /v1/evals/id/runs/id/output_items /v1/skills /v1/skills/id/content
/v1/chatkit/sessions /v1/chatkit/threads /v1/organization/users /v1/organization/usage/completions /v1/engines
/v1/engines/id/completions /v1/edits /v1/answers /v1/search /v1/classifications
/openai/deployments/id/chat/completions /openai/deployments/id/completions /openai/v1/responses
/openai/v1/chat/completions
"""
ANTHROPIC = """
/v1/messages /v1/messages/count_tokens /v1/messages/batches /v1/messages/batches/id
/v1/messages/batches/id/results /v1/messages/batches/id/cancel /v1/complete /v1/files /v1/files/id/content
/v1/skills /v1/skills/id/versions /v1/agents /v1/sessions /v1/sessions/id/events /v1/environments
/v1/experimental/generate_prompt /v1/organizations/me /anthropic/v1/messages
"""
GEMINI = """
/v1beta/models /v1beta/models/id /v1beta/models/id:generateContent /v1beta/models/id:streamGenerateContent
/v1beta/models/id:countTokens /v1beta/models/id:embedContent /v1beta/models/id:batchEmbedContents
/v1beta/models/id:batchGenerateContent /v1beta/models/id:predict /v1beta/models/id:predictLongRunning
/v1beta/models/id:generateMessage /v1beta/models/id:generateText /v1/models/id:generateContent
/v1/models/id:streamGenerateContent /v1alpha/models/id:generateContent /v1beta/tunedModels/id:generateContent
/v1beta/cachedContents /v1beta/files /upload/v1beta/files /v1beta/interactions /v1beta/interactions/id
/v1beta/openai/chat/completions /v1beta/corpora/id:query /v1beta/fileSearchStores
/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent
/v1/projects/p/locations/l/publishers/google/models/id:generateContent
/v1/projects/p/locations/l/publishers/anthropic/models/id:rawPredict
/v1/projects/p/locations/l/publishers/anthropic/models/id:streamRawPredict
"""
OLLAMA = """
/api/generate /api/chat /api/create /api/tags /api/show /api/copy /api/delete /api/pull /api/push /api/embed
/api/embeddings /api/ps /api/version /api/blobs/sha256:id /api/web_search /api/web_fetch
"""
OTHERS = """
/v2/chat /v2/generate /v1/generate /v1/rerank /v2/rerank /v1/score /v1/classify /v1/tokenize /tokenize
/detokenize /completion /completions /infill /generate /generate_stream /v1/fim/completions
/v1/agents/completions /v1/ocr /v1/chat/moderations /model/id/invoke /model/id/converse
/model/id/converse-stream /model/id/invoke-with-response-stream /invocations /pooling /embedding /props /slots
/slots/0 /lora-adapters /apply-template /metrics /docs /openapi.json /config/update /key/generate /admin
/guardrails/apply_guardrail /v1/mcp /mcp /sse /graphql
"""
ROUTES = sorted({route for routes in (OPENAI, ANTHROPIC, GEMINI, OLLAMA, OTHERS) for route in routes.split()})

# What each of our own routes is sent, so that it would answer if it could.
ASKED: Mapping[str, Any] = {door.path: door.ask for door in DOORS.values()} | {
    MODERATIONS: {"input": "hello"},
    GUARDRAIL: {"input_type": "request", "texts": ["hello"]},
}
READ = {("GET", "/v1/models")}  # names only, rebuilt: see test_model_list.py
KEPT = {("GET", "/v1/responses/resp_id")}
# What each family of `[passthrough] allow` lets through, and nothing else.
PASSED: Mapping[str, set[tuple[str, str]]] = {
    family: {(route.method, route.path.format("id", "id")) for route in passthrough.ROUTES if route.family == family}
    for family in passthrough.FAMILIES
}


def body_for(path: str) -> bytes:
    """Something for every dialect at once, so that only the route can be what is refused."""
    everything = {"model": "m", "prompt": "hello", "input": "hello", "messages": [{"role": "user", "content": "hello"}]}
    return json.dumps(ASKED.get(path, everything | {"contents": [{"parts": [{"text": "hello"}]}]})).encode()


def test_this_is_a_long_walk() -> None:
    assert len(ROUTES) >= 190
    assert ASKED.keys() - {GUARDRAIL} <= set(ROUTES)
    assert {path for paths in PASSED.values() for _, path in paths} <= set(ROUTES)


async def test_no_route_reaches_the_upstream_without_a_verdict() -> None:
    """The guard blocks every prompt, and is asked before the upstream is: so not one request may arrive there."""
    guard = ScriptedGuard(prompt_level=UNSAFE)
    async with weir(ScriptedUpstream(), guard, policy__prompt_check="before") as server:
        for path in [*ROUTES, GUARDRAIL, "/v1/responses/resp_id"]:
            for method in METHODS:
                if (method, path) in READ:
                    continue
                asked = len(guard.fed)
                reply = await ask(server.url, http_request(body_for(path), method=method, path=path))
                was_judged = len(guard.fed) > asked
                is_door = (method == "POST" and path in ASKED) or (method, path) in KEPT
                assert was_judged == is_door, (method, path)
                if path in (MODERATIONS, GUARDRAIL) and was_judged:
                    assert reply.status == 200
                else:
                    assert reply.status in ((400,) if was_judged else (404, 405)), (method, path, reply.raw)
                    said = [family for family, paths in PASSED.items() if (method, path) in paths and not was_judged]
                    assert [
                        family for family in PASSED if f'allow = ["{family}"]' in reply.raw.decode().replace("\\", "")
                    ] == said
                assert server.upstream.requests == [], (method, path)


async def walk(server: Weir, paths: Iterable[str]) -> set[tuple[str, str]]:
    """What reaches the upstream of a guard that lets nothing through."""
    reached = set()
    for path in paths:
        for method in METHODS:
            if (method, path) in READ:
                continue
            reply = await ask(server.url, http_request(body_for(path), method=method, path=path))
            for seen in server.upstream.requests:
                assert (seen["method"], seen["path"]) == (method, path)
                assert reply.headers["x-weir-scanned"] == "none"
                reached.add((method, path))
            server.upstream.requests.clear()
    return reached


@pytest.mark.parametrize("family", PASSED)
async def test_with_a_family_allowed_only_that_family_passes(family: str) -> None:
    guard = ScriptedGuard(prompt_level=UNSAFE)
    paths = sorted({path for one in PASSED.values() for _, path in one} | ASKED.keys())
    async with weir(
        ScriptedUpstream([b"{}"]), guard, policy__prompt_check="before", passthrough__allow=family
    ) as server:
        assert await walk(server, paths) == PASSED[family]


async def test_with_every_family_allowed_nothing_else_passes() -> None:
    guard, every = ScriptedGuard(prompt_level=UNSAFE), ",".join(PASSED)
    async with weir(
        ScriptedUpstream([b"{}"]), guard, policy__prompt_check="before", passthrough__allow=every
    ) as server:
        assert await walk(server, ROUTES) == set().union(*PASSED.values())


async def test_no_other_spelling_of_a_route_that_passes_is_one() -> None:
    async with weir(ScriptedUpstream([b"{}"]), passthrough__allow=",".join(PASSED)) as server:
        for method, path in sorted(set().union(*PASSED.values())):
            # An id may be any word, so these are other ids and no other spelling.
            words = {path.replace("id", "ID"), path.replace("id", "Id")} if path.endswith("/id") else set()
            for alias in {*aliases(path)} - {path, f"{path}/stream"} - words:
                reply = await ask(server.url, http_request(body_for(path), method=method, path=alias))
                assert reply.status in (400, 404, 405), (method, alias, reply.raw)
                assert server.upstream.requests == [], (method, alias)


def aliases(path: str) -> list[str]:
    tail = path.rsplit("/", 1)[1]
    return [
        f"/{path}",
        path.replace("/v1/", "/v1//"),
        f"{path}/",
        path.replace("/v1/", "/v1/./"),
        f"/x/..{path}",
        f"/.{path}",
        path.replace(tail, f"%{ord(tail[0]):02x}{tail[1:]}"),
        path.replace(f"/{tail}", f"%2f{tail}"),
        f"{path}%2f",
        f"{path}%5c",
        path.replace("/", "\\"),
        f"{path};a=b",
        f"{path}%00",
        f"{path}%20",
        f"{path}.",
        f"{path}%2e",
        path.replace("/v1", "/V1"),
        path.replace(tail, tail.upper()),
        path.replace(tail, tail.capitalize()),
        path.replace("/v1/", "/v1/%2e%2e/v1/"),
        f"{path}%3f",
        f"{path}%23",
        f"{path}%252f",
        f"{path}.json",
        f"{path}:",
        f"{path}/stream",
        f"http://canary.test{path}",
        path.replace("/v1/", "/"),
        path.replace("/v1/", "/v1%2e0/"),
        path.replace("/v1/", "/v01/"),
    ]


@pytest.mark.parametrize("path", [*ASKED, "/v1/models", "/v1/responses/resp_id"])
async def test_no_other_spelling_of_a_route_is_one(path: str) -> None:
    async with weir(ScriptedUpstream()) as server:
        for alias in aliases(path):
            if alias == path:
                continue
            for method in ("POST", "GET"):
                reply = await ask(server.url, http_request(body_for(path), method=method, path=alias))
                assert reply.status in (400, 404, 405), (method, alias, reply.raw)
        assert server.upstream.requests == []
        assert server.guard.fed == []


@pytest.mark.parametrize("path", [*ASKED, "/v1/realtime", "/v1/files", "/anything"])
async def test_no_websocket_opens(path: str) -> None:
    """Responses and Realtime know one; there is nothing here that could judge it."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Content-Length": "",
        "Content-Type": "",
    }
    async with weir(ScriptedUpstream(), passthrough__allow=",".join(PASSED)) as server, connected(server.url) as client:
        await client.send(http_request(b"", method="GET", path=path, headers=upgrade))
        reply = read_reply((await client.reply()).raw)
        assert (reply.status, reply.error["code"]) == (400, "websocket_unsupported")
        assert "WebSockets are not served" in reply.error["message"]
        assert server.upstream.requests == []
