"""A guard that an SGLang server runs: the branch that the model card names, or the mainline's sessions, over HTTP.

A server is trusted for nothing that can be counted: how many tokens a call has read in all, and how many rows came
back. What does not add up is asked again in a session of its own. A server that is gone is waited for, and every
stream is replayed when it is back.
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import aiohttp

from proxy.guard.canary import check_guard
from proxy.guard.door import GuardDoor
from proxy.guard.protocol import GuardError, GuardFault, GuardInfo, GuardOverloaded, GuardUnavailable
from proxy.guard.rows import CATEGORIES, LEVELS, rows_of_logits
from proxy.guard.sessions import Disconnected, Session, SessionLink, SessionLost
from proxy.guard.settings import GuardSettings
from proxy.risk import Role

Api = Literal["rid", "sessions"]
VOCABULARY = 151_936  # of Qwen3; a server does not tell
# Far above the rows of one window; stops a server that never ends an answer.
MAX_ANSWER_BYTES = 256 << 20
# A server answers this at once when it is there at all.
ALIVE_SECONDS = 2.0
# Between two looks for a server that is gone.
RETRY_SECONDS = 0.2
# A session that was forgotten, with its proxy, ends by itself.
SESSION_SECONDS = 3600
# The fields of the model card's branch: levels and categories of each role's heads.
FIELDS = {
    Role.ASSISTANT: ("risk_level_logits", "category_logits"),
    Role.USER: ("query_risk_level_logits", "query_category_logits"),
}
# Where a role's logits begin in a row of the mainline's: those of FIELDS, one head after another.
STARTS = {Role.ASSISTANT: 0, Role.USER: LEVELS + len(CATEGORIES[Role.ASSISTANT])}
WIDTH = STARTS[Role.USER] + LEVELS + len(CATEGORIES[Role.USER])


class Refused(Exception):
    """The server does not take the call as it is: status 400."""


class Server:
    """The HTTP calls. Use as an async context manager."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # As many calls at once as there are streams with a question; the door has the deadlines.
        self._http = aiohttp.ClientSession(
            headers=headers, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )

    async def close(self) -> None:
        await self._http.close()

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer as JSON, None where it is empty. Raises Refused, SessionLost, Disconnected, GuardError."""
        try:
            async with self._http.post(self._url + path, json=body, allow_redirects=False) as response:
                data = bytearray()
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > MAX_ANSWER_BYTES:
                        raise GuardFault("the SGLang server's answer has no end")
                _check_status(response.status)
        except aiohttp.ClientError as exc:
            if await self.is_alive():
                raise SessionLost from exc  # the connection broke, and what the server has read nobody knows
            raise Disconnected from exc
        try:
            return json.loads(data) if data else None
        except ValueError as exc:
            raise GuardFault("the SGLang server's answer is not JSON") from exc

    def _get(self, path: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._http.get(self._url + path, allow_redirects=False)

    async def is_alive(self) -> bool:
        try:
            async with asyncio.timeout(ALIVE_SECONDS), self._get("/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def model_name(self) -> str:
        """Raises GuardUnavailable."""
        try:
            async with asyncio.timeout(ALIVE_SECONDS), self._get("/get_model_info") as response:
                _check_status(response.status)
                path = (await response.json())["model_path"]
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise GuardUnavailable(f"no SGLang server answers at {self._url}: {type(exc).__name__}") from exc
        except (Refused, GuardError, KeyError, ValueError, TypeError) as exc:
            raise GuardUnavailable(f"what answers at {self._url}/get_model_info is no SGLang server: {exc}") from exc
        return str(path).rstrip("/").rpartition("/")[2]


class RidSession:
    """A `sessions.Session` of the branch `support_qwen3_guard`: one request id, resumed by each call."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._rid = f"weir-{uuid.uuid4().hex}"
        self._is_open = False
        self._read = 0

    async def extend(self, ids: Sequence[int], reads: Sequence[int], role: Role) -> bytes:
        """See `sessions.Session`."""
        body = {"input_ids": list(ids), "sampling_params": {"max_new_tokens": 1}, "rid": self._rid, "resumable": True}
        self._is_open = True
        answer = await _generate(self._server, body, is_first=not self._read)
        self._read = _count(answer, self._read + len(ids), is_first=not self._read)
        levels, categories = (_flat(answer.get(field)) for field in FIELDS[role])
        width = len(CATEGORIES[role])
        if len(levels) != LEVELS * len(ids) or len(categories) != width * len(ids):
            raise GuardFault(f"{len(levels) / LEVELS:g} verdicts for {len(ids)} tokens")
        return rows_of_logits([levels[at * LEVELS :][:LEVELS] + categories[at * width :][:width] for at in reads], role)

    async def close(self) -> None:
        """See `sessions.Session`."""
        if self._is_open:
            with contextlib.suppress(Refused, SessionLost, Disconnected, GuardError):
                await self._server.post("/abort_request", {"rid": self._rid})


class StreamingSession:
    """A `sessions.Session` of the mainline: a streaming session, with the heads' logits as hidden states."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._id = f"weir-{uuid.uuid4().hex}"
        self._is_open = False
        self._read = 0

    async def extend(self, ids: Sequence[int], reads: Sequence[int], role: Role) -> bytes:
        """See `sessions.Session`."""
        if not self._is_open:
            opening = {"capacity_of_str_len": 0, "session_id": self._id, "streaming": True, "timeout": SESSION_SECONDS}
            self._is_open = True
            try:
                opened = await self._server.post("/open_session", opening)
            except Refused as exc:
                raise GuardUnavailable("the SGLang server opens no session: --enable-streaming-session?") from exc
            if opened != self._id:
                raise GuardFault("the SGLang server opened another session than it was asked for")
        body = {
            "input_ids": list(ids),
            "sampling_params": {"max_new_tokens": 0},
            "session_params": {"id": self._id},
            "return_hidden_states": True,
            # What another stream has read is not computed again, and then has no rows.
            "cache_salt": self._id,
        }
        answer = await _generate(self._server, body, is_first=not self._read)
        self._read = _count(answer, self._read + len(ids), is_first=not self._read)
        states = _states(answer)
        # They end with the last token of the call; a long call's beginning, which is read in pieces, may have none.
        before = len(states) - len(ids)
        if any(before + at < 0 for at in reads):
            raise GuardFault(f"{len(states)} verdicts for {len(ids)} tokens")
        start, end = STARTS[role], STARTS[role] + LEVELS + len(CATEGORIES[role])
        return rows_of_logits([states[before + at][start:end] for at in reads], role)

    async def close(self) -> None:
        """See `sessions.Session`."""
        if self._is_open:
            with contextlib.suppress(Refused, SessionLost, Disconnected, GuardError):
                await self._server.post("/close_session", {"session_id": self._id})


SESSIONS: Mapping[Api, Callable[[Server], Session]] = {"rid": RidSession, "sessions": StreamingSession}


class SGLangGuard(GuardDoor):
    """A guard behind an SGLang server. Made and used on one event loop."""

    def __init__(self, url: str, api: Api, settings: GuardSettings, key: str = "") -> None:
        super().__init__(settings)
        self._server = Server(url, key)
        self._sessions = SessionLink(lambda: SESSIONS[api](self._server), self.receive, self._on_disconnect)
        self._returning: asyncio.Task[None] | None = None

    async def connect(self, window: int, vocabulary: int = VOCABULARY) -> None:
        """Raises GuardUnavailable, with the guard closed."""
        try:
            name = await self._server.model_name()
        except BaseException:
            await self.close()
            raise
        self.connected(self._sessions, GuardInfo(name, "sglang", window), vocabulary)
        await check_guard(self)

    async def close(self) -> None:
        """See `protocol.Guard`."""
        await super().close()
        if self._returning is not None:
            self._returning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._returning
        await self._sessions.close()
        await self._server.close()

    def _on_disconnect(self) -> None:
        if self._returning is None or self._returning.done():
            self.disconnected()
            # It ends when the server is back; `close` ends it as well.
            self._returning = asyncio.get_running_loop().create_task(self._wait(), name="guard-sglang")

    async def _wait(self) -> None:
        while not await self._server.is_alive():  # noqa: ASYNC110 (nobody would tell)
            await asyncio.sleep(RETRY_SECONDS)
        self.connected(self._sessions, self.info, self._vocabulary)


async def start_sglang_guard(
    url: str, api: Api, window: int, settings: GuardSettings, key: str = "", vocabulary: int = VOCABULARY
) -> SGLangGuard:
    """Connect to an SGLang server and let it judge the canaries once. The caller closes the guard.

    `window`: tokens of one stream, at most the server's context length. Raises GuardUnavailable.
    """
    guard = SGLangGuard(url, api, settings, key)
    await guard.connect(window, vocabulary)
    return guard


def _check_status(status: int) -> None:
    """Raises Refused or GuardError for what is not 200."""
    if status in (429, 503):
        raise GuardOverloaded(f"the SGLang server answered {status}")
    if status == 400:
        raise Refused
    if status != 200:
        raise GuardUnavailable(f"the SGLang server answered {status}")


async def _generate(server: Server, body: Mapping[str, Any], *, is_first: bool) -> dict[str, Any]:
    try:
        answer = await server.post("/generate", body)
    except Refused as exc:
        if not is_first:
            raise SessionLost from exc
        raise GuardFault("the SGLang server refused the text") from exc
    if not isinstance(answer, dict):
        raise GuardFault("the SGLang server gave no verdict")
    return answer


def _count(answer: Mapping[str, Any], expected: int, *, is_first: bool) -> int:
    """How many tokens the session has read now. Raises SessionLost where they are others than ours."""
    meta = answer.get("meta_info")
    found = meta.get("prompt_tokens") if isinstance(meta, dict) else None
    if found == expected:
        return expected
    if is_first:
        raise GuardFault(f"the SGLang server has read {found} tokens of {expected}")
    raise SessionLost


def _flat(value: Any) -> list[float]:
    """Numbers in a list, or in lists of any depth."""
    if isinstance(value, list):
        return [number for part in value for number in _flat(part)]
    if isinstance(value, int | float):
        return [float(value)]
    raise GuardFault("the SGLang server gave no verdict that can be read")


def _states(answer: Mapping[str, Any]) -> list[list[float]]:
    """The hidden states of what was read: lists of rows. A row by itself is of a token that the model made up."""
    parts = answer["meta_info"].get("hidden_states")
    if not isinstance(parts, list):
        raise GuardFault("the SGLang server gave no hidden states: --enable-return-hidden-states?")
    states = [_flat(row) for part in parts if isinstance(part, list) for row in part if isinstance(row, list)]
    if any(len(row) != WIDTH for row in states):
        raise GuardFault(f"the SGLang server's model gives no {WIDTH} logits a token: see docs/guards.md")
    return states
