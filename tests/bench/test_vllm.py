"""The measure of two guards side by side; with vLLM itself it is `make bench-vllm`."""

import time

from bench.vllm import QUESTION_TOKENS, QUESTIONS, beside, seconds_of
from tests.fakes import ScriptedGuard


async def test_a_question_takes_what_its_guard_takes_however_many_ask_at_once() -> None:
    slow = ScriptedGuard(delay=0.02)
    started = time.perf_counter()
    found = await seconds_of(slow, streams=4, context=8, vocabulary=100)
    whole = time.perf_counter() - started
    assert 0.018 < found <= whole / QUESTIONS  # a sleep may end early
    assert slow.tokens == 4 * QUESTIONS * QUESTION_TOKENS
    assert slow.slots == 0


async def test_two_guards_take_turns_and_the_middle_round_is_told() -> None:
    its, own = await beside([ScriptedGuard(delay=0.03), ScriptedGuard(delay=0.003)], 1, 8, rounds=3, vocabulary=100)
    assert its > own > 0
