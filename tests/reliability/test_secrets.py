"""Canaries in keys, prompts and answers, through every way in which a request can end, at the level debug."""

import asyncio
import importlib.util
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.identity import digest_of
from tests.collector import Collector
from tests.driver import answer, body
from tests.fakes import UNSAFE, RawUpstream, ScriptedGuard, ScriptedUpstream, labels
from tests.reliability.bugs import JSON
from tests.servers import weir
from tests.sockets import ASK, CHAT_PATH, PATIENCE_SECONDS, Reply, ask, connected, free_port, http_request, read_reply

KEY, OWN, PROMPT, REPLY = "weir-canarykey", "sk-canaryown", "canaryprompt", "canaryreply"
MESSAGES = [{"role": "user", "content": f"{PROMPT} and more"}]
BEARER = {"authorization": f"Bearer {KEY}"}
WORDS = [REPLY, " one", " two", f" {REPLY}", " three"]


@dataclass
class Way:
    """A request, and what upstream and guard make of it. `quotes`: the upstream's own words may pass, once judged."""

    request: bytes
    upstream: Any = field(default_factory=lambda: ScriptedUpstream(answer(WORDS)))
    guard: ScriptedGuard = field(default_factory=ScriptedGuard)
    settings: Mapping[str, Any] = field(default_factory=dict)
    leaves: bool = False
    quotes: bool = False


def asked(*, headers: Mapping[str, str] = BEARER, is_streamed: bool = True, **fields: Any) -> bytes:
    return http_request(headers=headers, **{"stream": is_streamed, "messages": MESSAGES, **fields})


def said(words: str, status: int = 200, **more: Any) -> ScriptedUpstream:
    return ScriptedUpstream([words.encode()], status=status, content_type=JSON, **more)


ERROR = json.dumps({"error": {"message": f"{REPLY} {PROMPT} {OWN} {KEY}", "type": REPLY, "code": "x"}})


def of_answers(*, is_streamed: bool) -> dict[str, Way]:
    """The ends of an answer, streamed or whole."""

    def speaking() -> ScriptedUpstream:
        return ScriptedUpstream(answer(WORDS)) if is_streamed else said(body({"content": "".join(WORDS)}).decode())

    request = asked(is_streamed=is_streamed)
    mistake: Any = ValueError(f"{KEY} {OWN} {PROMPT} {REPLY}")
    return {
        "complete": Way(request, speaking()),
        "cut": Way(request, speaking(), ScriptedGuard(labels("SSUU"))),
        "annotated": Way(request, speaking(), ScriptedGuard(labels("SSUU")), {"policy__on_flag": "annotate"}),
        "monitored": Way(request, speaking(), ScriptedGuard(labels("SSUU")), {"policy__on_flag": "monitor"}),
        "prompt blocked": Way(request, speaking(), ScriptedGuard(prompt_level=UNSAFE)),
        "no verdict on the prompt": Way(request, speaking(), ScriptedGuard(prompt_fault="raise")),
        "no verdict": Way(request, speaking(), ScriptedGuard(fails_after=2)),
        "too few verdicts": Way(request, speaking(), ScriptedGuard(fails_after=2, fault="short")),
        "open": Way(request, speaking(), ScriptedGuard(fails_after=2), {"guard__on_failure": "open"}),
        "a mistake of ours": Way(request, speaking(), ScriptedGuard(fails_after=2, error=mistake)),
        "garbled": Way(request, ScriptedUpstream([f'data: {{"{REPLY} {OWN}'.encode(), b"\n\n"])),
        "refused": Way(request, said(ERROR, 401), quotes=True),
        "upstream error": Way(request, said(ERROR, 500), quotes=True),
        "client leaves": Way(request, ScriptedUpstream(answer(WORDS), stall_at=2), leaves=True),
        "redirect": Way(request, said("{}", 302, headers={"location": f"http://{REPLY}/{OWN}"})),
    }


BROKEN = b"HTTP/1.1 200 canaryreply\r\ncanaryreply sk-canaryown\r\n\r\n"
OF_REQUESTS: dict[str, Way] = {
    "breaks off": Way(asked(), ScriptedUpstream(answer(WORDS), cut_at=3)),
    "stalls": Way(asked(), ScriptedUpstream(answer(WORDS), stall_at=3), settings={"upstream__idle_seconds": 0.2}),
    "error event": Way(asked(), ScriptedUpstream([*answer(WORDS)[:3], f"data: {ERROR}\n\n".encode()])),
    "no HTTP": Way(asked(), RawUpstream(BROKEN)),
    "HTML": Way(asked(), ScriptedUpstream([b"<p>canaryreply"], content_type="text/html")),
    "no key": Way(asked(headers={})),
    "wrong key": Way(asked(headers={"authorization": f"Bearer {KEY}x"})),
    "two keys": Way(asked(headers={**BEARER, "x-api-key": f"{KEY}y"})),
    "broken JSON": Way(http_request(f'{{"{PROMPT}'.encode(), headers=BEARER)),
    "key twice": Way(http_request(f'{{"{PROMPT}":1,"{PROMPT}":2}}'.encode(), headers=BEARER)),
    "wrong type": Way(asked(temperature=PROMPT)),
    "wrong role": Way(asked(messages=[{"role": PROMPT, "content": PROMPT}])),
    "image": Way(asked(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PROMPT}}]}])),
    "too large": Way(asked(user=PROMPT * 900), settings={"server__max_body_bytes": 4096}),
    "another type": Way(asked(headers={**BEARER, "content-type": f"text/{PROMPT}"})),
    "another path": Way(http_request(path=f"{CHAT_PATH}/{PROMPT}?key={KEY}", headers=BEARER)),
    "another method": Way(http_request(method="PUT", headers={**BEARER, "x-prompt": PROMPT})),
    "half a body": Way(asked()[:-5], leaves=True),
    "no request": Way(f"GET {PROMPT} {KEY}\r\n\x00: {OWN}\r\n\r\n".encode()),
    "websocket": Way(http_request(b"", method="GET", headers={**BEARER, "connection": "upgrade", "upgrade": PROMPT})),
}  # fmt: skip
WAYS = {f"{name}, {how}": way for how, is_streamed in (("streamed", True), ("whole", False))
        for name, way in of_answers(is_streamed=is_streamed).items()} | OF_REQUESTS  # fmt: skip
METRICS = http_request(b"", method="GET", path="/metrics", headers={"Host": "127.0.0.1", "Content-Type": ""})
SECRETS = (KEY, OWN, PROMPT, REPLY)
HAS_OTEL = importlib.util.find_spec("opentelemetry.sdk") is not None


@pytest.mark.parametrize("name", WAYS)
async def test_no_key_and_no_text_is_told_to_a_log_a_record_a_metric_a_trace_or_a_stranger(
    name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    way = WAYS[name]
    caplog.set_level(logging.DEBUG)
    # What the library would tell of a task that nobody waited for.
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    keys = {"auth__keys": f"app:{digest_of(KEY)}", "upstream__api_key": OWN, "policy__notice": ""}
    port, collector = free_port(), Collector()
    async with collector.running():
        traces = {"telemetry__endpoint": collector.url} if HAS_OTEL else {}
        settings = {**keys, **way.settings, **traces, "admin__port": port}
        raw, numbers = await seen(way, port, settings)
    assert numbers.status == 200
    out, err = capfd.readouterr()
    told = caplog.text + out + err + repr(contexts) + numbers.body.decode() + collector.raw.decode("latin-1")
    assert not [secret for secret in SECRETS if secret in told]
    assert not [secret for secret in (KEY, OWN) if secret.encode() in raw]
    assert contexts == []
    assert collector.spans or not HAS_OTEL or not name.startswith("complete")
    reply = read_reply(raw)
    if reply.status >= 400 and not way.quotes:
        assert b"canary" not in raw


async def seen(way: Way, port: int, settings: Mapping[str, Any]) -> tuple[bytes, Reply]:
    """What the client got, and the operator's numbers then."""
    async with weir(way.upstream, way.guard, **settings) as server:
        async with asyncio.timeout(PATIENCE_SECONDS), connected(server.url) as client:
            await client.send(way.request)
            if way.leaves:
                await asyncio.sleep(0.05)
                client.leave()
            else:
                await client.reply()
            raw = client.received
        await asyncio.sleep(0.02)
        return raw, await ask(f"http://127.0.0.1:{port}", METRICS)


def test_there_are_more_than_thirty_ways() -> None:
    assert len(WAYS) >= 45
    assert ASK["messages"] != MESSAGES
