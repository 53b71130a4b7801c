"""An upstream that answers each user with an answer of their own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes import ScriptedUpstream


@dataclass
class ByUser(ScriptedUpstream):
    """The request's `user` field picks the chunks."""

    answers: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        user = json.loads(await request.read())["user"]
        one = ScriptedUpstream(self.answers[user], content_type=self.content_type, pause=self.pause)
        return await one._answer(request)
