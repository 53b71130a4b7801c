"""What a key may use, on a clock of the test's own."""

from contextlib import ExitStack

import pytest

from proxy.errors import ApiError
from proxy.key_limits import KeyLimits, OwnUsage


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def limits_of(clock: Clock | None = None, **given: int) -> KeyLimits:
    limits = KeyLimits(OwnUsage(), clock or Clock())
    limits.adopt(**given)
    return limits


def refusal(limits: KeyLimits) -> ApiError | None:
    try:
        with limits.enter():
            return None
    except ApiError as exc:
        return exc if exc.status == 429 else None


def test_without_limits_nobody_is_refused() -> None:
    limits = KeyLimits()
    limits.charge(10**9)
    assert all(refusal(limits) is None for _ in range(1000))


def test_streams_are_counted_while_they_run_and_free_their_place_whatever_happens() -> None:
    limits = limits_of(max_streams=2)
    with ExitStack() as stack:
        stack.enter_context(limits.enter())
        stack.enter_context(limits.enter())
        error = refusal(limits)
        assert error is not None
        assert error.extra == {"limit": "max_streams"}
        assert error.headers == {"retry-after": "1"}
    with pytest.raises(ValueError, match="broken"), limits.enter():
        raise ValueError("broken")
    assert limits.running == 0
    assert refusal(limits) is None


def test_requests_refill_evenly_over_a_minute() -> None:
    clock = Clock()
    limits = limits_of(requests_per_minute=6, clock=clock)
    assert [refusal(limits) is None for _ in range(7)] == [True] * 6 + [False]
    error = refusal(limits)
    assert error is not None
    assert error.headers == {"retry-after": "10"}
    clock.now += 9.9
    assert refusal(limits) is not None
    clock.now += 0.2
    assert refusal(limits) is None
    clock.now += 10_000
    assert sum(refusal(limits) is None for _ in range(20)) == 6  # a minute's worth at the most


def test_tokens_that_are_owed_are_made_good_first() -> None:
    clock = Clock()
    limits = limits_of(tokens_per_minute=60, clock=clock)
    assert refusal(limits) is None
    limits.charge(180)
    error = refusal(limits)
    assert error is not None
    assert error.extra == {"limit": "tokens_per_minute"}
    assert error.headers == {"retry-after": "121"}
    clock.now += 121
    assert refusal(limits) is None


def test_what_one_limit_refuses_uses_up_no_other() -> None:
    limits = limits_of(max_streams=1, requests_per_minute=2)
    with limits.enter():
        assert all(refusal(limits) is not None for _ in range(10))
    assert refusal(limits) is None
