"""Who asks: exactly one credential, known by its hash."""

import os
import random
import re
import string
import sys
import time
from array import array
from collections import Counter
from contextlib import suppress
from statistics import mean
from typing import Any

import pytest

from proxy.auth_settings import AuthSettings
from proxy.errors import ApiError
from proxy.identity import Callers, announce, digest_of, new_key, owner_of

ALICE, BOB = "weir-alice", "weir-bob"
KEYS = [{"name": "alice", "sha256": digest_of(ALICE)}, {"name": "bob", "sha256": digest_of(BOB)}]
CALLERS = Callers(AuthSettings.model_validate({"keys": KEYS}))


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", f"Bearer {BOB}")],
        [("AUTHORIZATION", f"bearer {BOB}")],
        [("x-api-key", BOB)],
        [("Api-Key", BOB)],
        [("api-key", BOB), ("authorization", f"Bearer {BOB}")],  # some clients send theirs twice
    ],
)
def test_a_key_is_known_wherever_clients_put_it(headers: list[tuple[str, str]]) -> None:
    caller = CALLERS.identify(headers)
    assert (caller.name, caller.owner) == ("bob", "bob")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer ")],
        [("authorization", BOB)],
        [("authorization", f"Basic {BOB}")],
        [("authorization", f"Bearer  {BOB}")],
        [("authorization", f"Bearer {BOB[:-1]}")],
        [("authorization", f"Bearer {digest_of(BOB)}")],
        [("x-api-key", f"Bearer {BOB}")],
        [("x-api-key", BOB.upper())],
        [("x-api-key", BOB + "\udcff")],
        [("cookie", f"api-key={BOB}")],
    ],
)
def test_anything_else_is_told_nothing_but_no(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ApiError) as caught:
        CALLERS.identify(headers)
    assert caught.value.status == 401
    assert caught.value.message == "The API key is missing or not valid."


@pytest.mark.parametrize("second", [("x-api-key", ALICE), ("authorization", f"Bearer {ALICE}"), ("x-api-key", "")])
def test_two_credentials_are_refused_though_each_were_good(second: tuple[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        CALLERS.identify([("authorization", f"Bearer {BOB}"), second])
    assert caught.value.status == 400


LONG_KEY = new_key()
MANY_KEYS = [*KEYS, {"name": "long", "sha256": digest_of(LONG_KEY)}]
MANY = Callers(AuthSettings.model_validate({"keys": MANY_KEYS}))


def refused(key: str) -> None:
    with suppress(ApiError):
        MANY.identify([("x-api-key", key)])


def work_of(key: str) -> Counter[str]:
    """How often each builtin function is called to refuse a key."""
    calls: Counter[str] = Counter()

    def note(_: object, event: str, called: Any) -> None:
        if event == "c_call":
            calls[called.__name__] += 1

    sys.setprofile(note)
    try:
        refused(key)
    finally:
        sys.setprofile(None)
    return calls


def guesses(count: int, *, near: bool) -> list[str]:
    """As long as the key: those that begin as it does, for one character or many, and those that do not."""
    rng, alphabet = random.Random(count + near), string.ascii_letters
    made = ["".join(rng.choices(alphabet, k=len(LONG_KEY))) for _ in range(count)]
    return [LONG_KEY[: (at := rng.randrange(1, len(LONG_KEY)))] + one[at:] if near else one for one in made]


def test_b4_a_guess_is_worth_the_same_work_however_near_it_is() -> None:
    one = work_of("x" * len(LONG_KEY))
    names = ("compare_digest", "sha256")  # as this Python calls them, with more before
    assert [sum(one[name] for name in one if name.endswith(word)) for word in names] == [len(MANY_KEYS), 1]
    for guess in [*guesses(100, near=True), *guesses(100, near=False), LONG_KEY[:-1] + "x"]:
        assert work_of(guess) == one, guess


@pytest.mark.skipif("WEIR_LONG" not in os.environ, reason="measures time, for a quiet machine: WEIR_LONG=1")
def test_b4_a_guess_takes_the_same_time_however_near_it_is() -> None:
    """Of two hundred thousand of each kind, in turn at random, without the slowest tenth."""
    rng, count = random.Random(4), 200_000
    kinds = [guesses(count, near=True), guesses(count, near=False)]
    spent = [array("q"), array("q")]
    for number in range(count):
        for kind in rng.sample((0, 1), 2):
            guess = kinds[kind][number]
            begin = time.perf_counter_ns()
            refused(guess)
            spent[kind].append(time.perf_counter_ns() - begin)
    bound = sorted(spent[0] + spent[1])[int(1.8 * count)]
    near, far = ([one for one in kind if one <= bound] for kind in spent)
    print(f"near {mean(near):.1f} ns, far {mean(far):.1f} ns")
    assert abs(mean(near) - mean(far)) < 0.005 * mean(far)


def test_limits_are_of_the_key_not_of_the_request() -> None:
    first, second = (CALLERS.identify([("x-api-key", BOB)]) for _ in range(2))
    assert first.limits is second.limits
    assert first.limits is not CALLERS.identify([("x-api-key", ALICE)]).limits


def test_a_key_of_ours_stays_here_and_a_clients_own_goes_on() -> None:
    headers = {"Authorization": f"Bearer {BOB}", "x-api-key": BOB, "x-title": "app"}
    assert CALLERS.identify([("x-api-key", BOB)]).forwarded(headers) == {"x-title": "app"}
    anybody = Callers(AuthSettings()).identify([])
    assert (anybody.name, anybody.owner, anybody.forwarded(headers)) == ("", "", headers)


def test_without_keys_the_guard_knows_an_owner_by_a_hash_of_the_credential_or_not_at_all() -> None:
    keys = [{"authorization": "Bearer sk-a"}, {"authorization": "Bearer sk-b"}, {"api-key": "sk-a"}]
    owners = [owner_of(headers) for headers in keys]
    assert len(set(owners)) == 3
    assert not any("sk-" in owner for owner in owners)
    assert owner_of({"x-title": "app"}) == ""


def test_a_new_key_is_random_and_its_table_lets_it_in() -> None:
    assert len({new_key() for _ in range(100)}) == 100
    said = announce("carol")
    [key] = re.findall(r"^(weir-[\w-]{43})$", said, re.MULTILINE)
    table = dict(re.findall(r'^(name|sha256) = "(.+)"$', said, re.MULTILINE))
    callers = Callers(AuthSettings.model_validate({"keys": [table]}))
    assert callers.identify([("authorization", f"Bearer {key}")]).name == "carol"
    assert f"WEIR_AUTH__KEYS=carol:{digest_of(key)}" in said
