"""A scripted upstream, to try a deployment without a model or a key: it streams one sentence, a word a delta.

`python upstream.py [PORT]`. Ask anything through Weir and it answers; it needs nothing but aiohttp.
"""

import asyncio
import json
import sys
from typing import Any

from aiohttp import web

ANSWER = "This is a scripted answer, streamed word by word; behind it there is no model at all."
MODEL = "scripted"
WORD_SECONDS = 0.03


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


async def chat(request: web.Request) -> web.StreamResponse:
    if not (await request.json()).get("stream"):
        message = {"role": "assistant", "content": ANSWER}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": MODEL}
        return web.json_response(body | {"choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(chunk({"role": "assistant", "content": ""}))
    for number, word in enumerate(ANSWER.split(" ")):
        await response.write(chunk({"content": word if number == 0 else f" {word}"}))
        await asyncio.sleep(WORD_SECONDS)
    await response.write(chunk({}, "stop") + b"data: [DONE]\n\n")
    return response


async def models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "weir"}]})


def main() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    web.run_app(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 9000, print=None)


if __name__ == "__main__":
    main()
