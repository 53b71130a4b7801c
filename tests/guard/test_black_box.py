import os
import signal
import time

from proxy.guard.black_box import MAX_ENTRIES, BlackBox


def test_what_a_process_noted_outlives_it() -> None:
    box = BlackBox()
    if not (child := os.fork()):
        box.beat(5)
        box.note([(1, 10), (2, 20), (1, 11)])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert box.suspects() == {1: [10, 11], 2: [20]}
    assert box.steps == 5


def test_a_step_that_has_ended_leaves_nobody() -> None:
    box = BlackBox()
    box.note([(1, 10)])
    box.note([])
    assert box.suspects() == {}


def test_silence_is_counted_from_the_last_beat() -> None:
    box = BlackBox()
    time.sleep(0.5)
    before = box.silent_seconds
    assert 0.4 < before < 60
    box.note([(1, 2)])
    box.beat(3)
    assert box.silent_seconds < before
    assert box.suspects() == {1: [2]}, "a beat does not end a step"
    box.clear()
    assert (box.steps, box.suspects()) == (0, {})


def test_a_step_too_large_to_note_is_noted_in_part() -> None:
    box = BlackBox()
    box.note((1, stream) for stream in range(MAX_ENTRIES + 10))
    assert box.suspects() == {1: list(range(MAX_ENTRIES))}


def test_an_engine_that_has_to_load_first_may_be_silent_for_longer_once() -> None:
    box = BlackBox()
    box.clear(60.0)
    assert box.silent_seconds < -50
    box.beat(0)
    assert 0 <= box.silent_seconds < 40
