"""Section I of docs/reliability.md: a guard that fails, in every way and at every moment."""

import asyncio
from collections import Counter
from itertools import product
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.guard.limits import Limits
from proxy.guard.loader import load_guard
from proxy.guard.protocol import (
    GuardFault,
    GuardOutOfMemory,
    GuardOverloaded,
    GuardTimeout,
    GuardUnavailable,
    SequenceTooLong,
    UnknownStream,
)
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GuardSettings
from tests.driver import WORDS, answer, body
from tests.e2e.test_faults import outcome, text_of
from tests.e2e.test_streams import events
from tests.fakes import ScriptedGuard, ScriptedUpstream, labels
from tests.reliability.operator import operated, told
from tests.servers import recorded, weir
from tests.sockets import ask, timed

JSON = "application/json"
TEXT = "".join(WORDS)
# What the engine's client makes of a refused connection, a reset, a crash, NaN and so on: see tests/guard/test_door.py.
ERRORS: dict[str, Any] = {
    "gone": GuardUnavailable("gone"),
    "unknown stream": UnknownStream("unknown"),
    "overloaded": GuardOverloaded("full"),
    "out of memory": GuardOutOfMemory("full"),
    "timeout": GuardTimeout("late"),
    "not finite, foreign or out of order": GuardFault("not finite"),
    "too long": SequenceTooLong("long"),
    "refused": ConnectionRefusedError("refused"),
    "a mistake": ZeroDivisionError("a mistake of ours"),
}
FAULTS = [*ERRORS, "short", "long", "hang"]
PHASES: dict[str, int | None] = {"prompt": None, "first token": 0, "second": 1, "middle": 5, "last": 9}
MODES: dict[str, dict[str, Any]] = {"hold": {}, "window": {"policy__release": "window", "policy__window": 6}}
SOON: dict[str, Any] = {"guard__verdict_seconds": 0.1, "guard__admission_seconds": 0.1, "policy__notice": ""}


def failing(fault: str, after: int | None) -> ScriptedGuard:
    """The answer turns at its fourth word, if anybody still looks."""
    guard = ScriptedGuard(labels("SSSUUUUUUU"))
    kind = fault if fault in ("short", "long", "hang") else "raise"
    guard.error = ERRORS.get(fault, guard.error)
    if after is None:
        guard.prompt_fault = kind
    else:
        guard.fails_after, guard.fault = after, kind
    return guard


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_i2_no_failure_of_the_guard_opens_the_gate(fault: str, phase: str, mode: str) -> None:
    after, bound = PHASES[phase], MODES[mode].get("policy__window", 0)
    for is_streamed in (True, False):
        upstream = ScriptedUpstream(answer(WORDS))
        if not is_streamed:
            upstream = ScriptedUpstream([body({"content": TEXT})], content_type=JSON)
        guard = failing(fault, after)
        async with weir(upstream, guard, **SOON, **MODES[mode]) as server:
            with recorded() as records, timed():
                reply = await ask(server.url, stream=is_streamed)
                record = await records.next()
            assert guard.slots == 0
        found = outcome(reply) if is_streamed or reply.status != 200 else "cut"
        assert found in ("refused", "error", "cut")
        assert found == "refused" or after is not None
        judged = min(3, after or 0)
        assert len(text_of(reply, is_streamed)) <= (len("".join(WORDS[:judged])) + bound if found != "cut" else 13)
        assert record["outcome"] == found
        assert b" five" not in reply.raw


async def test_i3_every_answer_that_left_unjudged_is_labelled_recorded_and_counted() -> None:
    soon = SOON | {"guard__verdict_seconds": 0.4, "guard__admission_seconds": 0.4}
    async with operated(ScriptedUpstream(answer(WORDS)), **soon, guard__on_failure="open") as (server, admin):
        guard, told_by_records = cast(ScriptedGuard, server.guard), Counter[str]()
        for fault, after in product(("gone", "short", "hang"), (None, -1, 0, 5, 100)):
            broken = failing(fault, after)
            guard.error, guard.fault, guard.prompt_fault = broken.error, broken.fault, broken.prompt_fault
            guard.tokens, guard.fails_after = 0, broken.fails_after
            with recorded() as records:
                reply = await ask(server.url, stream=True)
                record = await records.next()
            assert events(reply).content == TEXT
            [finish] = [one for one in events(reply).events if one["choices"][0]["finish_reason"]]
            # The finish says it where the headers left before the failure.
            label = finish.get("weir", {}).get("scanned", reply.headers["x-weir-scanned"])
            assert label == record["scanned"]
            assert (label == "full") == (after == 100)
            told_by_records[label] += 1
        found = [
            sample
            for family in text_string_to_metric_families((await told(admin)).decode())
            for sample in family.samples
            if sample.name == "weir_requests_total"
        ]
    counted = Counter[str]()
    for sample in found:
        counted[sample.labels["scanned"]] += int(sample.value)
    assert counted == told_by_records


async def test_i9_what_finds_no_memory_is_refused_and_what_was_admitted_is_served() -> None:
    """A real engine with room for a few conversations, and many more at once."""
    loaded = load_guard()
    budget = 4 * 512 * loaded.model.architecture.kv_bytes_per_token(4)
    settings = GuardSettings(
        threads=1, window=512, kv_bytes=budget, verdict_seconds=30.0, limits=Limits(admission_seconds=0.1)
    )
    guard = LocalGuard(loaded, settings)
    prompt = [{"role": "user", "content": "The river rose overnight, and nobody found the bridge. " * 30}]
    try:
        async with weir(ScriptedUpstream(answer(WORDS), pause=0.05), guard, guard__verdict_seconds=30.0) as server:
            replies = await asyncio.gather(*(ask(server.url, stream=True, messages=prompt) for _ in range(24)))
            assert guard.streams == 0
            assert events(await ask(server.url, stream=True)).content == TEXT
    finally:
        await guard.close()
    served = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status != 200]
    assert served
    assert refused
    assert all(events(reply).content == TEXT for reply in served)
    assert {(reply.status, reply.headers["retry-after"]) for reply in refused} == {(503, "1")}
