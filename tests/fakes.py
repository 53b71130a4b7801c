"""Two fakes: a scripted guard, and a scripted upstream on a real socket."""

import asyncio
import functools
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from proxy.guard.answer import Later
from proxy.guard.protocol import GuardError, GuardInfo, Health, Heard
from proxy.risk import PROMPT_CATEGORIES, RESPONSE_CATEGORIES, Category, Risk, RiskLevel, Role
from proxy.vocabulary import FIRST_CONTROL_ID, decode

SAFE, CONTROVERSIAL, UNSAFE = RiskLevel.SAFE, RiskLevel.CONTROVERSIAL, RiskLevel.UNSAFE
LEVEL_OF = {"S": SAFE, "C": CONTROVERSIAL, "U": UNSAFE}

# The text of an answer so far, as ids -> the level of its newest token.
Rule = Callable[[Sequence[int]], RiskLevel]


def risk(level: RiskLevel, category: Category = Category.VIOLENT, role: Role = Role.ASSISTANT) -> Risk:
    """A risk of 0.9 certainty."""
    categories = RESPONSE_CATEGORIES if role is Role.ASSISTANT else PROMPT_CATEGORIES
    levels = tuple(0.9 if one is level else 0.05 for one in (SAFE, UNSAFE, CONTROVERSIAL))
    chances = tuple(0.9 if one is category else 0.1 / (len(categories) - 1) for one in categories)
    return Risk(level, category, 0.9, 0.9, levels, chances)


def all_safe(_: Sequence[int]) -> RiskLevel:
    return SAFE


def labels(text: str) -> Rule:
    """The n-th token of any text gets the n-th letter of "SCU..."; past the end it is safe."""

    def rule(ids: Sequence[int]) -> RiskLevel:
        return LEVEL_OF[text[len(ids) - 1]] if len(ids) <= len(text) else SAFE

    return rule


def words(*flagged: str, level: RiskLevel = UNSAFE) -> Rule:
    """Every token from the one that completes a flagged word on."""

    def rule(ids: Sequence[int]) -> RiskLevel:
        text = decode(ids)
        return level if any(word in text for word in flagged) else SAFE

    return rule


def content_of(ids: Sequence[int]) -> list[int]:
    """The ids after the last frame, without the newlines that belong to it."""
    start = max((i + 1 for i, one in enumerate(ids) if one >= FIRST_CONTROL_ID), default=0)
    return [one for i, one in enumerate(ids[start:]) if i or one not in (198, 271)]


@dataclass
class ScriptedGuard:
    """Answers by rule, and fails on demand. `slots` counts the streams that are open."""

    rule: Rule = all_safe
    prompt_level: RiskLevel = SAFE
    category: Category = Category.VIOLENT
    delay: float = 0.0
    prompt_delay: float = 0.0
    fails_after: int | None = None  # answer tokens after which every call raises `error`
    error: GuardError = field(default_factory=lambda: GuardError("scripted"))
    short_by: int = 0  # risks missing from each reply
    fault: str = "raise"  # what `fails_after` leads to: raise, short, long or hang
    prompt_fault: str | None = None  # the same for the prompt, at once
    slots: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)  # a prompt is being judged
    judging: asyncio.Event = field(default_factory=asyncio.Event)  # an answer is being judged
    freed: asyncio.Event = field(default_factory=asyncio.Event)  # no stream is open any more
    fed: list[list[int]] = field(default_factory=list)  # the ids of each stream when it was closed
    tokens: int = 0
    window: int = 32768
    name: str = "scripted"

    @property
    def info(self) -> GuardInfo:
        return GuardInfo(self.name, "0", self.window)

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple["ScriptedStream", list[Risk]]:
        self.opened.set()
        await asyncio.sleep(self.prompt_delay)
        risks = [risk(self.prompt_level, self.category, role) for _ in read]
        if self.fails_after is not None and self.fails_after < 0:
            raise self.error
        if self.prompt_fault is not None:
            risks = await self.fail(self.prompt_fault, risks)
        self.take()
        return ScriptedStream(self, list(ids)), risks

    def take(self) -> None:
        self.slots += 1
        self.freed.clear()

    def free(self) -> None:
        self.slots -= 1
        if not self.slots:
            self.freed.set()

    async def fail(self, fault: str, risks: list[Risk]) -> list[Risk]:
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "short":
            return risks[:-1]
        if fault == "long":
            return [*risks, risks[-1]]
        raise self.error

    async def health(self) -> Health:
        return Health(True, "scripted", 0.0)

    async def close(self) -> None: ...


class ScriptedStream:
    slides = 0

    def __init__(self, guard: ScriptedGuard, ids: list[int]) -> None:
        self._guard = guard
        self._ids = ids
        self._is_open = True
        self._asking: Later[list[Risk]] | None = None

    @property
    def position(self) -> int:
        return len(self._ids)

    def ask(self, position: int, ids: Sequence[int], heard: Heard) -> None:
        self._asking = Later(self.judge(position, ids), heard)

    def give_up(self) -> None:
        if self._asking is not None:
            self._asking.give_up()

    async def judge(self, position: int, ids: Sequence[int]) -> list[Risk]:
        guard = self._guard
        if position > len(self._ids):
            raise ValueError(f"position {position} is past the end {len(self._ids)}")
        del self._ids[position:]
        risks = []
        for one in ids:
            self._ids.append(one)
            guard.tokens += 1
            content = content_of(self._ids)
            risks.append(risk(guard.rule(content) if content else SAFE, guard.category))
        guard.judging.set()
        await asyncio.sleep(guard.delay)
        if guard.fails_after is not None and guard.tokens > guard.fails_after:
            risks = await guard.fail(guard.fault, risks)
        return risks[: len(risks) - guard.short_by]

    def fork(self) -> "ScriptedStream":
        self._guard.take()
        return ScriptedStream(self._guard, list(self._ids))

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._guard.free()
            self._guard.fed.append(self._ids)


class QuickGuard(ScriptedGuard):
    """Finds everything safe, in no time however long the text is."""

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple[ScriptedStream, list[Risk]]:
        self.take()
        return _QuickStream(self, list(ids)), [harmless(role) for _ in read]


class _QuickStream(ScriptedStream):
    async def judge(self, position: int, ids: Sequence[int]) -> list[Risk]:
        self._ids[position:] = ids
        await asyncio.sleep(0)
        return [harmless(Role.ASSISTANT)] * len(ids)

    def fork(self) -> ScriptedStream:
        self._guard.take()
        return _QuickStream(self._guard, list(self._ids))


@functools.cache
def harmless(role: Role) -> Risk:
    categories = RESPONSE_CATEGORIES if role is Role.ASSISTANT else PROMPT_CATEGORIES
    chances = tuple(1.0 / len(categories) for _ in categories)
    return Risk(SAFE, categories[0], 0.999, chances[0], (0.999, 0.0005, 0.0005), chances)


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    """Serves an application on a port of its own; yields its address."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        for _ in range(5):  # turns in which what was just given up is accepted, and closed: later, nobody would
            await asyncio.sleep(0)
        await runner.cleanup()


@dataclass
class ScriptedUpstream:
    """Plays `chunks` to every POST. Strings and objects become events; bytes are sent as they are."""

    chunks: Sequence[Any] = ()
    status: int = 200
    content_type: str = "text/event-stream"
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0  # seconds between chunks
    stall_at: int | None = None  # the chunk before which it goes silent
    cut_at: int | None = None  # the chunk before which it drops the connection
    first_byte_delay: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)  # method, path, query, headers, body
    closed_early: int = 0  # answers that the proxy hung up on
    answered: int = 0  # answers that it let us finish
    asked: asyncio.Event = field(default_factory=asyncio.Event)  # a request is here
    left: asyncio.Event = field(default_factory=asyncio.Event)  # the proxy has hung up
    url: str = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        seen = {"method": request.method, "path": request.path, "query": request.rel_url.raw_query_string}
        self.requests.append(seen | {"headers": request.headers.copy(), "body": await request.read()})
        self.asked.set()
        headers = {"content-type": self.content_type} | self.headers
        response = web.StreamResponse(status=self.status, headers=headers)
        try:
            await asyncio.sleep(self.first_byte_delay)
            await response.prepare(request)
            for number, chunk in enumerate(self.chunks):
                await self._before(number, request)
                await response.write(to_bytes(chunk))
                await asyncio.sleep(self.pause)
            await self._before(len(self.chunks), request)
        except (ConnectionError, asyncio.CancelledError):
            self.closed_early += 1
            self.left.set()
            raise
        self.answered += 1
        return response

    async def _before(self, number: int, request: web.Request) -> None:
        if number == self.stall_at:
            await asyncio.sleep(3600)
        if number == self.cut_at:
            assert request.transport is not None
            request.transport.close()
            raise ConnectionResetError

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedUpstream"]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        async with listening(app) as self.url:
            yield self


@dataclass
class Scripted(ScriptedUpstream):
    """Another answer to each request, and then the last one for ever."""

    answers: list[list[Any]] = field(default_factory=list)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.answers:
            self.chunks = self.answers.pop(0)
        return await super()._answer(request)


@dataclass
class RawUpstream:
    """Sends `reply` to whatever it is asked, byte for byte, and then closes: with FIN, or with RST."""

    reply: bytes = b""
    resets: bool = False
    stays: bool = False  # wait for the next request instead
    late: bytes = b""  # what it adds a little after each reply
    hits: int = 0
    heads: list[bytes] = field(default_factory=list)  # of the requests, as they came
    closed: asyncio.Event = field(default_factory=asyncio.Event)  # the proxy has closed a connection
    url: str = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
            while self.stays:
                await self._answer(reader, writer)
            if self.resets:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()
            writer.transport.abort() if self.resets else writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.hits += 1
        self.heads.append(head)
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        await reader.readexactly(int(length[1]) if length else 0)
        writer.write(self.reply)
        await writer.drain()
        if self.late:
            await asyncio.sleep(0.02)
            writer.write(self.late)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["RawUpstream"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()


def framed(body: bytes, framing: str, content_type: str = "text/event-stream", size: int = 64) -> bytes:
    """A whole HTTP response; `framing` is chunked, length or close."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n"
    if framing == "chunked":
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        return (head + "transfer-encoding: chunked\r\n\r\n").encode() + data
    if framing == "length":
        return (head + f"content-length: {len(body)}\r\n\r\n").encode() + body
    return (head + "connection: close\r\n\r\n").encode() + body


def to_bytes(chunk: Any) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    data = chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False)
    return f"data: {data}\n\n".encode()
