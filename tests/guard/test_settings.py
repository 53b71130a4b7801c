import os

from proxy.guard.settings import GREETING, Canary, GuardSettings, default_threads

IM_END = 151645


def test_the_canary_is_read_at_the_end_of_the_users_turn() -> None:
    assert GREETING[Canary().read] == IM_END


def test_every_wait_has_a_bound() -> None:
    settings = GuardSettings()
    waits = (settings.verdict_seconds, settings.open_seconds, settings.health_seconds)
    assert all(0 < seconds < 60 for seconds in (*waits, settings.limits.admission_seconds))
    # Who waits for room must learn that there is none before the whole question times out.
    assert settings.limits.admission_seconds < settings.open_seconds


def test_a_core_is_left_to_the_event_loop() -> None:
    cores = os.cpu_count() or 1
    assert 1 <= default_threads() <= max(1, cores - 1)
