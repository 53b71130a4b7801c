"""Upstreams that answer each user with an answer of their own."""

import asyncio
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.driver import answer, body
from tests.fakes import RawUpstream, ScriptedUpstream, framed


@dataclass
class ByUser(ScriptedUpstream):
    """The request's `user` field picks the chunks."""

    answers: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        user = json.loads(await request.read())["user"]
        self.started.append(user)
        one = ScriptedUpstream(self.answers[user], content_type=self.content_type, pause=self.pause)
        return await one._answer(request)


@dataclass
class Echo(RawUpstream):
    """Answers each request with its own `user`, over connections that stay, and sometimes adds `extra`."""

    dice: random.Random = field(default_factory=lambda: random.Random(18))
    extra: bytes = b""
    stays: bool = True

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.hits += 1
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        asked = json.loads(await reader.readexactly(int(length[1]) if length else 0))
        await asyncio.sleep(self.dice.random() * 0.01)
        whole = framed(body({"content": asked["user"]}), "length", "application/json")
        if asked["stream"]:
            whole = framed(b"".join(answer([asked["user"]])), "chunked")
        writer.write(whole + (self.extra if self.dice.random() < 0.2 else b""))
        await writer.drain()
