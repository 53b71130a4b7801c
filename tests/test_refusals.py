"""What an upstream's refusal becomes."""

from typing import Any

import pytest

from proxy.classifier import Classifier
from proxy.policy import Policy
from proxy.refusals import refusal_of
from tests.fakes import ScriptedGuard, words


class Refusal:
    """The part of an UpstreamResponse that a refusal is read from."""

    def __init__(self, body: bytes, status: int = 400) -> None:
        self.status = status
        self.headers = {"retry-after": "3"}
        self._body = body

    async def read_error(self) -> bytes:
        return self._body


async def refuse(body: bytes, guard: ScriptedGuard | None = None, status: int = 400, *, own: str | None = None) -> Any:
    guard = guard or ScriptedGuard(words("bad"))
    stream, _ = await guard.open([1, 2])
    async with Classifier(stream) as classifier:
        refusal: Any = Refusal(body, status)
        return await refusal_of(refusal, classifier, Policy(debounce=1), own_key=own)


async def test_a_harmless_message_passes_with_its_words() -> None:
    error = await refuse(b'{"error":{"message":"Too many.","type":"a_b","param":"messages[0].content","code":429}}')
    assert (error.status, error.message, error.type) == (400, "Too many.", "a_b")
    assert (error.param, error.code) == ("messages[0].content", "429")
    assert error.headers == {"retry-after": "3"}


@pytest.mark.parametrize(
    ("body", "guard"),
    [
        (b'{"error":{"message":"a bad word"}}', None),
        (b'{"error":{"message":"fine"}}', ScriptedGuard(fails_after=0)),
        (b'{"error":{"message":["fine"]}}', None),
        (b"<html>fine</html>", None),
        (b'{"error":', None),
        (b"[" * 100_000, None),
        (b"\xff", None),
        (b"", None),
    ],
)
async def test_what_is_not_judged_harmless_is_replaced(body: bytes, guard: ScriptedGuard | None) -> None:
    error = await refuse(body, guard)
    assert error.message == "The upstream answered with status 400."
    assert error.type == "upstream_error"


async def test_geminis_words_are_read_as_well() -> None:
    error = await refuse(b'[{"error":{"code":429,"message":"Too many.","status":"RESOURCE_EXHAUSTED"}}]', status=429)
    assert (error.status, error.message, error.type) == (429, "Too many.", "RESOURCE_EXHAUSTED")
    assert (await refuse(b"[]")).type == "upstream_error"


async def test_a_plain_string_is_a_message_too() -> None:
    assert (await refuse(b'{"error":"model not found"}')).message == "model not found"


async def test_a_long_message_is_cut() -> None:
    assert len((await refuse(b'{"error":{"message":"' + b"x " * 9999 + b'"}}')).message) == 2048


@pytest.mark.parametrize("value", ['"a b"', '"' + "x" * 65 + '"', "true", "null", "{}", '"\\u00e9"', '""'])
async def test_a_word_that_could_be_prose_does_not_pass(value: str) -> None:
    error = await refuse(b'{"error":{"message":"m","type":%s,"code":%s,"param":%s}}' % ((value.encode(),) * 3))
    assert (error.type, error.code, error.param) == ("upstream_error", None, None)


@pytest.mark.parametrize("status", [401, 403])
async def test_what_is_said_of_our_own_key_is_kept_back(status: int) -> None:
    assert "key" not in (await refuse(b'{"error":{"message":"bad key"}}', status=status, own="sk-ours")).message


async def test_our_own_key_is_kept_back_wherever_it_is_quoted() -> None:
    error = await refuse(
        b'{"error":{"message":"key skours7 has no credit","type":"skours7","code":"a_skours7"}}', own="skours7"
    )
    assert (error.message, error.type, error.code) == (
        "The upstream answered with status 400.",
        "upstream_error",
        None,
    )


async def test_nothing_is_shown_that_no_guard_can_judge() -> None:
    refusal: Any = Refusal(b'{"error":{"message":"fine"}}')
    error = await refusal_of(refusal, None, Policy(), own_key=None)
    assert "fine" not in error.message
