"""Section L of docs/reliability.md: what logs and errors may say."""

import json
import logging
from typing import Any

import pytest

from tests.doors import DOORS, Door
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels
from tests.servers import recorded, weir
from tests.sockets import ask, http_request

JSON = "application/json"
KEY, PROMPT, REPLY = "sk-canary-key", "canary-prompt", "canary-reply"
ENDS = ["complete", "cut", "blocked", "guard fails", "prompt fails", "breaks", "garbled", "error", "refused", "mistake"]


def scene(door: Door, end: str, *, is_body: bool) -> tuple[ScriptedUpstream, ScriptedGuard]:
    guard = ScriptedGuard(labels("SSUU") if end == "cut" else labels(""))
    chunks: list[Any] = door.chunks(f"{REPLY} and some more words of it", is_body=is_body)
    upstream = ScriptedUpstream(chunks, content_type=JSON if is_body else "text/event-stream")
    if end == "blocked":
        guard.prompt_level = UNSAFE
    elif end == "guard fails":
        guard.fails_after = 3
    elif end == "prompt fails":
        guard.prompt_fault = "raise"
    elif end == "mistake":
        guard.fails_after, guard.error = 3, ValueError(f"{REPLY} {PROMPT} {KEY}")  # type: ignore[assignment]
    elif end == "breaks":
        upstream.cut_at = len(chunks) // 2
    elif end == "garbled":
        upstream.chunks = [f'data: {{"{REPLY}'.encode(), b"\n\n"]
    elif end in ("error", "refused"):
        upstream.chunks = [json.dumps({"error": {"message": f"{REPLY} {PROMPT} {KEY}"}}).encode()]
        upstream.status = 500 if end == "error" else 401
    return upstream, guard


async def test_l1_no_key_and_no_text_is_logged_whatever_comes_of_a_request(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Eighty ends, at the level debug: four doors, streamed and not, ten ways to end."""
    caplog.set_level(logging.DEBUG)
    outcomes = set()
    for door in DOORS.values():
        asked = json.dumps(door.ask).replace("hello", PROMPT)
        assert PROMPT in asked
        for end in ENDS:
            for is_body in (True, False):
                upstream, guard = scene(door, end, is_body=is_body)
                async with weir(upstream, guard, upstream__api_key=KEY) as server:
                    with recorded() as records:
                        data = json.dumps(json.loads(asked) | {"stream": not is_body}).encode()
                        headers = {"authorization": f"Bearer {KEY}", "x-request-id": KEY}
                        reply = await ask(server.url, http_request(data, path=door.path, headers=headers))
                        outcomes.add((await records.next())["outcome"])
                    assert KEY.encode() not in reply.raw
                    assert PROMPT.encode() not in reply.raw or end == "error"
                    for path in ("/healthz", "/readyz"):
                        said = await ask(server.url, http_request(b"", method="GET", path=path))
                        assert b"canary" not in said.raw
    assert outcomes == {"complete", "cut", "error", "refused"}
    shown = capfd.readouterr()
    assert "canary" not in caplog.text + shown.out + shown.err
