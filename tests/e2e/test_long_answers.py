"""Answers longer than the guard's window are judged to their end, and the record says how (G7)."""

import json

from proxy.guard.loader import load_guard
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GuardSettings
from tests.driver import DONE, chunk
from tests.fakes import ScriptedUpstream
from tests.servers import recorded, weir
from tests.sockets import ask
from tests.wire import finish_reason_of, text_of
from training.probes import TURNING_ANSWERS

WINDOW = 512
PROBE = TURNING_ANSWERS[1]
# About six windows of text.
HARMLESS = PROBE.answer * 80


async def replied(text: str, *, stream: bool) -> tuple[str, str | None, int]:
    """What the client got, how it ended, and how often the window slid."""
    if stream:
        upstream = ScriptedUpstream([*(chunk({"content": text[at : at + 50]}) for at in range(0, len(text), 50)), DONE])
    else:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        upstream = ScriptedUpstream([json.dumps(body).encode()], content_type="application/json")
    guard = LocalGuard(load_guard(), GuardSettings(threads=1, window=WINDOW, verdict_seconds=60.0))
    try:
        with recorded() as records:
            async with weir(upstream, guard, policy__notice="", guard__verdict_seconds=60.0) as server:
                reply = await ask(server.url, stream=stream)
            record = await records.next()
    finally:
        await guard.close()
    if stream:
        return text_of(reply.body), finish_reason_of(reply.body), record["window_slides"]
    choice = reply.json["choices"][0]
    return choice["message"]["content"], choice["finish_reason"], record["window_slides"]


async def test_g7_an_answer_that_turns_many_windows_in_is_cut_there() -> None:
    for stream in (True, False):
        text, finish, slides = await replied(HARMLESS + PROBE.turn, stream=stream)
        assert finish == "content_filter"
        assert text.startswith(HARMLESS)
        assert len(text) < len(HARMLESS + PROBE.turn)
        assert slides > 3


async def test_g7_a_harmless_answer_of_many_windows_arrives_whole() -> None:
    text, finish, slides = await replied(HARMLESS + "\n", stream=False)
    assert (text, finish) == (HARMLESS + "\n", "stop")
    assert slides > 3
