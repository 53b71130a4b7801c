from proxy.benchmark.parity import told, verdict_parity
from proxy.guard.random_weights import random_guard


def test_a_guard_agrees_with_itself() -> None:
    guard = random_guard("tiny", dtype="float32")
    parity = verdict_parity(guard, guard, ["One text.", "Another, of more words."])
    assert parity.tokens == parity.same > 10
    assert parity.largest_difference == 0.0


def test_a_coarser_format_differs_and_the_line_says_by_how_much() -> None:
    exact, coarse = (random_guard("tiny", dtype=dtype) for dtype in ("float32", "bfloat16"))
    parity = verdict_parity(exact, coarse)
    assert 0 < parity.largest_difference < 0.3
    assert 0.9 * parity.tokens < parity.same <= parity.tokens
    line = told(parity, "bfloat16")
    assert "bfloat16 beside float32" in line
    assert f"{parity.tokens:,} tokens" in line
