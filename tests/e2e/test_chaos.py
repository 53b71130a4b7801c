"""Anything may fail at any moment: whatever does, nothing leaks, nothing hangs, and every end is told and recorded."""

import asyncio
import os
import random
from dataclasses import dataclass
from typing import Any

import pytest

from tests.driver import DONE, WORDS, chunk
from tests.e2e.test_streams import chunked, events, trigger_of
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels
from tests.servers import recorded, weir
from tests.sockets import PATIENCE_SECONDS, Client, Reply, connected, http_request

CASES = 3000 if "WEIR_LONG" in os.environ else 60
FAULTS = ["raise", "short", "long", "hang"]
MODES: dict[str, dict[str, Any]] = {
    "hold": {},
    "window": {"policy__release": "window", "policy__window": 5},
    "monitor": {"policy__on_flag": "monitor"},
    "open": {"guard__on_failure": "open"},
}
SOON = {
    "guard__verdict_seconds": 0.1,
    "guard__admission_seconds": 0.05,
    "upstream__idle_seconds": 0.15,
    "policy__notice": "",
}


@dataclass
class Case:
    mode: str
    texts: list[str]  # of each choice
    field: str
    upstream: ScriptedUpstream
    guard: ScriptedGuard
    settings: dict[str, Any]
    leaves: float | None  # after so many seconds, if at all
    resets: bool


def case_of(rng: random.Random) -> Case:
    texts = ["".join(rng.choices(WORDS, k=rng.randint(2, 10))) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    field = rng.choice(["content", "reasoning_content", "refusal"])
    upstream = upstream_of(rng, texts, field)
    guard = ScriptedGuard(labels("".join(rng.choices("SSSU", k=10))), prompt_delay=rng.choice([0, 0, 0.02]))
    guard.delay = rng.choice([0, 0, 0.01])
    if rng.random() < 0.3:
        guard.fails_after, guard.fault = rng.randint(0, 12), rng.choice(FAULTS)
    if rng.random() < 0.05:
        guard.prompt_fault = rng.choice(FAULTS)
    if rng.random() < 0.05:
        guard.prompt_level = UNSAFE
    mode = rng.choice(["hold", *MODES])
    settings = SOON | MODES[mode] | {"policy__prompt_check": rng.choice(["parallel", "before"])}
    settings["server__heartbeat_seconds"] = rng.choice([0.03, 15])
    leaves = rng.random() * 0.05 if rng.random() < 0.15 else None
    return Case(mode, texts, field, upstream, guard, settings, leaves, rng.random() < 0.5)


def upstream_of(rng: random.Random, texts: list[str], field: str) -> ScriptedUpstream:
    """The choices' events in any order, cut anywhere, and perhaps broken."""
    parts = [
        [*(chunk({field: part}, index=index) for part in chunked(text, rng)), chunk({}, "stop", index=index)]
        for index, text in enumerate(texts)
    ]
    order = [index for index, events_of in enumerate(parts) for _ in events_of]
    rng.shuffle(order)
    raw = b"".join([*(parts[index].pop(0) for index in order), DONE if rng.random() < 0.8 else b""])
    if rng.random() < 0.3:
        raw = raw[: rng.randrange(len(raw))]
    if rng.random() < 0.1:
        raw += rng.choice([b"data: {\n\n", b'data: {"error":{"message":"x"}}\n\n', b"\n\n: x\n\n"])
    size = rng.choice([1 << 20, 300, 41])
    upstream = ScriptedUpstream([raw[at : at + size] for at in range(0, len(raw), size)])
    if rng.random() < 0.15:
        upstream.cut_at = rng.randint(0, len(upstream.chunks))
    if rng.random() < 0.1:
        upstream.stall_at = rng.randint(0, len(upstream.chunks))
    return upstream


@pytest.mark.parametrize("seed", range(CASES))
async def test_every_end_is_told_recorded_and_without_a_leak(seed: int) -> None:
    case = case_of(random.Random(seed))
    with recorded() as records:
        async with (
            weir(case.upstream, case.guard, **case.settings) as server,
            asyncio.timeout(PATIENCE_SECONDS),
            connected(server.url) as client,
        ):
            await client.send(http_request(stream=True, n=len(case.texts)))
            reply = await stay_or_leave(case, client)
            record = await records.next()
            await asyncio.sleep(0)
            assert case.guard.slots == 0
    assert len(records.lines) == 1
    if reply is not None:
        check(case, reply, record)


async def stay_or_leave(case: Case, client: Client) -> Reply | None:
    if case.leaves is None:
        return await client.reply()
    await asyncio.sleep(case.leaves)
    client.leave(reset=case.resets)
    return None


def check(case: Case, reply: Reply, record: Any) -> None:
    assert record["status"] == reply.status
    if reply.status != 200:
        assert record["outcome"] == "refused"
        assert reply.error["message"]
        return
    found = events(reply)
    assert found.is_done == reply.is_complete == (found.error is None)
    kind = "error" if found.error else "cut" if "content_filter" in found.finish.values() else "complete"
    assert record["outcome"] == kind
    for index, text in enumerate(case.texts):
        delivered = found.texts.get((index, case.field), "")
        assert text.startswith(delivered)
        check_bound(case, text, delivered, found.finish.get(index))
    for channel in record["channels"]:
        assert channel["delivered"] == len(found.texts.get((channel["choice"], case.field), ""))
        if case.mode == "hold" or record["scanned"] == "full":
            assert channel["scanned"] >= channel["delivered"]


def check_bound(case: Case, text: str, delivered: str, finish: str | None) -> None:
    safe = trigger_of(text, case.guard.rule)
    if case.mode == "hold":
        assert len(delivered) <= safe
        assert finish is None or delivered == (text if finish == "stop" else text[:safe])
    elif case.mode == "window":
        assert len(delivered) <= safe + 5
