"""An SGLang server that is a script, over the reference model: both APIs, as their sources and the model card tell.

It keeps what a real one keeps, ids by request or session, and gives the logits of what a call adds. It can be told
to misbehave: an entry of `faults` is taken by the next call.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import torch
from aiohttp import web

from proxy.guard.settings import GuardSettings
from proxy.guard.sglang import Api, SGLangGuard
from tests.guard.checkpoints import Reference

HEADS = {
    "risk_level_logits": "risk_level_head",
    "category_logits": "category_head",
    "query_risk_level_logits": "query_risk_level_head",
    "query_category_logits": "query_category_head",
}
Answer = dict[str, Any]
# What becomes of an answer, or of the call instead of one.
Fault = Callable[[Answer], Any]


class ScriptedSGLang:
    key = "secret"
    model = "/models/small"

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.texts: dict[str, list[int]] = {}  # by request or session
        self.sessions: set[str] = set()
        self.bodies: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        self.is_answering = asyncio.Event()
        self.is_answering.set()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedSGLang"]:
        await self.start()
        try:
            yield self
        finally:
            self.is_answering.set()
            await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/get_model_info", self._info)
        for path in ("generate", "open_session", "close_session", "abort_request"):
            app.router.add_post(f"/{path}", getattr(self, f"_{path}"))
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """With it goes all that it kept."""
        if self._runner is not None:
            await self._runner.cleanup()
        self.texts.clear()
        self.sessions.clear()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _info(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.json_response({"model_path": self.model, "is_generation": True})

    def _check(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            raise web.HTTPUnauthorized

    async def _read(self, request: web.Request) -> dict[str, Any]:
        self._check(request)
        body: dict[str, Any] = await request.json()
        await self.is_answering.wait()
        self.bodies.append(body)
        return body

    async def _open_session(self, request: web.Request) -> web.Response:
        body = await self._read(request)
        name = body["session_id"]
        if name in self.sessions or not body["streaming"]:
            return _refusal("Failed to open the session.")
        self.sessions.add(name)
        return web.json_response(name)

    async def _close_session(self, request: web.Request) -> web.Response:
        name = (await self._read(request))["session_id"]
        self.sessions.discard(name)
        self.texts.pop(name, None)
        return web.Response()

    async def _abort_request(self, request: web.Request) -> web.Response:
        self.texts.pop((await self._read(request))["rid"], None)
        return web.Response()

    async def _generate(self, request: web.Request) -> web.Response:
        body = await self._read(request)
        ids = body["input_ids"]
        if "session_params" in body:
            name = body["session_params"]["id"]
            if name not in self.sessions:
                return _refusal(f"Invalid request: session id {name} does not exist")
            assert body["sampling_params"] == {"max_new_tokens": 0}
            assert body["return_hidden_states"]
        else:
            name = body["rid"]
            assert body["resumable"]
        text = self.texts.setdefault(name, [])
        text += ids
        logits = self.reference.logits(text)
        parts = {field: logits[head][-len(ids) :] for field, head in HEADS.items()}
        answer: Answer = {"text": "", "meta_info": {"id": name, "prompt_tokens": len(text), "completion_tokens": 0}}
        if "session_params" in body:
            answer["meta_info"]["hidden_states"] = [torch.cat(list(parts.values()), dim=1).tolist()]
        else:
            answer |= {field: part.flatten().tolist() for field, part in parts.items()}
        changed = self.faults.pop(0)(answer) if self.faults else answer
        if isinstance(changed, web.Response):
            return changed
        if isinstance(changed, int):
            return _refusal("no", changed)
        if changed is None:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(changed)


class ScriptedGuard(SGLangGuard):
    """A guard that knows its server."""

    script: ScriptedSGLang


async def start_scripted(script: ScriptedSGLang, api: Api, settings: GuardSettings) -> ScriptedGuard:
    guard = ScriptedGuard(script.url, api, settings, script.key)
    guard.script = script
    assert settings.window is not None
    await guard.connect(settings.window, 400)
    return guard


def _refusal(message: str, status: int = 400) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)
