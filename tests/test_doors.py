"""Every door has all its parts, and the same text gets the same verdict at the same character at each."""

import json
import os
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import ENDPOINTS
from proxy import doors
from proxy.doors import error_body, terms_of
from proxy.errors import ApiError
from proxy.policies import Chosen, policy_of
from proxy.policy_settings import PolicySettings
from proxy.server_settings import ServerSettings
from proxy.stream import Expected, Outcome
from tests.doors import CHAT, DOORS, Door
from tests.driver import WORDS, Guard, drive
from tests.fakes import labels, words
from tests.judge import random_text
from tests.wire import cut

TEXT = "".join(WORDS)
BREAK_STEP = 1 if "WEIR_LONG" in os.environ else 3
NAMES = sorted(DOORS)
SHAPES = [(name, is_body) for name in NAMES for is_body in (False, True)]


def test_a_door_has_an_adapter_a_reader_and_tests() -> None:
    assert doors.DOORS.keys() == ENDPOINTS.keys() == {door.path for door in DOORS.values()}


WATCH: dict[str, Any] = {"on_flag": "monitor"}


def by(**values: Any) -> Chosen:
    settings = PolicySettings.model_validate(values)
    return Chosen(settings, policy_of(settings))


@pytest.mark.parametrize("name", NAMES)
def test_every_reader_reads_its_own_requests(name: str) -> None:
    terms = terms_of(ServerSettings(), by())
    asked = DOORS[name].ask | {"stream": True}
    request = doors.DOORS[DOORS[name].path].read(asked, terms)
    assert request.stream
    assert request.model == "m"
    assert [message["content"] for message in request.messages] == ["hello"]
    assert request.forward.items() >= asked.items()


def test_what_is_only_watched_needs_no_permission() -> None:
    part: dict[str, Any] = {"channels": {"reasoning": {}}}
    for overrides, allowed in (({}, False), (WATCH, True), (WATCH | part, False)):
        terms = terms_of(ServerSettings(), by(**overrides))
        assert (terms.allow_stored, terms.allow_unscanned) == (allowed, allowed)
    assert terms_of(ServerSettings(), by(allow_stored=True)).allow_stored


def test_an_error_has_the_shape_of_its_door() -> None:
    error = ApiError(404, "No.")
    assert error_body("/v1/chat/completions", error) == error_body("/nowhere", error) == error.body()


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_any_cut_of_a_safe_answer_gives_the_text(name: str, is_body: bool, data: st.DataObject) -> None:
    door = DOORS[name]
    text = data.draw(st.text(min_size=1, max_size=30).map(lambda text: text.encode("utf-8", "replace").decode()))
    raw = b"".join(door.chunks(text, is_body=is_body, size=data.draw(st.integers(1, 9))))
    stream, adapter = door.stream_of(is_body=is_body)
    sent = drive(stream, cut(raw, data.draw(st.integers(1, len(raw)))))
    heard = door.understood(sent, is_body=is_body)
    assert (heard.text, heard.finish, heard.is_ended) == (text, door.stop, True)
    assert stream.outcome is Outcome.COMPLETE
    assert adapter.dropped == 0


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_the_same_text_is_cut_at_the_same_character_at_every_door(
    name: str, is_body: bool, data: st.DataObject
) -> None:
    door, rule = DOORS[name], labels(data.draw(st.text("SCU", max_size=10)))
    text = data.draw(st.sampled_from([TEXT, random_text(random.Random(data.draw(st.integers(0, 9999))))]))
    expected = Expected(notice="")
    chat, _ = CHAT.stream_of(expected=expected)
    reference = CHAT.hear(drive(chat, CHAT.chunks(text, is_body=False), Guard(rule)))
    raw = b"".join(door.chunks(text, is_body=is_body, size=data.draw(st.integers(1, 9))))
    stream, _ = door.stream_of(is_body=is_body, expected=expected)
    heard = door.understood(drive(stream, cut(raw, data.draw(st.integers(1, len(raw)))), Guard(rule)), is_body=is_body)
    assert heard.text == reference.text
    assert (heard.finish == door.cut) == (reference.finish == CHAT.cut) == (stream.outcome is Outcome.CUT)
    assert heard.is_ended
    [(key, channel)] = stream.channels.items()
    assert (key, channel.length >= len(heard.text)) == ((0, "content"), True)


def strings_in(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, one in value.items() for text in (key, *strings_in(one))]
    if isinstance(value, list):
        return [text for one in value for text in strings_in(one)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
def test_a_cut_says_the_notice_and_nothing_of_the_rest(name: str, is_body: bool) -> None:
    door = DOORS[name]
    stream, _ = door.stream_of(is_body=is_body, expected=Expected(notice="[cut]", wants_usage=True))
    sent = drive(stream, door.chunks(TEXT, is_body=is_body), Guard(labels("SSUU")))
    heard = door.understood(sent, is_body=is_body)
    assert (heard.text, heard.finish) == ("one two[cut]", door.cut)
    assert "three" not in sent.decode()
    assert "Violent" in sent.decode()


@pytest.mark.parametrize("name", NAMES)
def test_every_break_of_a_stream_is_an_error_and_never_an_end(name: str) -> None:
    """A stream that breaks off anywhere before it has said that it is complete."""
    door = DOORS[name]
    raw = b"".join(door.answer(WORDS))
    complete = 0
    for size in range(0, len(raw), BREAK_STEP):
        stream, _ = door.stream_of()
        heard = door.hear(drive(stream, [raw[:size]]))
        assert TEXT.startswith(heard.text)
        assert (heard.error is None) == heard.is_ended == (stream.outcome is Outcome.COMPLETE)
        if heard.is_ended:
            assert heard.finish == door.stop
            complete += 1
    assert complete < 200  # the upstream's own last words


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
def test_a_word_that_is_flagged_leaves_nowhere(name: str, is_body: bool) -> None:
    """Not in the text, not in a copy of it, not by a letter: for every upstream's own repetition of its text."""
    door = DOORS[name]
    stream, _ = door.stream_of(is_body=is_body, expected=Expected(notice=""))
    sent = drive(stream, door.chunks("aaa CANARY bbb", is_body=is_body, size=2), Guard(words("CANARY")))
    assert "CANARY" not in sent.decode()
    assert "bbb" not in sent.decode()
    texts = strings_in(door.understood(sent, is_body=is_body).events)
    assert not any("CANA" in text for text in texts)


@pytest.mark.parametrize(("name", "is_body"), SHAPES)
@pytest.mark.parametrize("odd", ["[]", '"text"', "{}", '{"type":"text","text":"CANARY"}', '{"choices":"CANARY"}', "{"])
def test_what_cannot_be_read_is_an_error_that_quotes_nothing(name: str, is_body: bool, odd: str) -> None:
    door = DOORS[name]
    stream, _ = door.stream_of(is_body=is_body)
    raw = odd.encode() if is_body else f"data: {odd.replace('text', 'CANARY')}\n\n".encode()
    sent = drive(stream, [raw])
    assert stream.outcome is Outcome.FAILED
    assert "CANARY" not in sent.decode()


def door_of(path: str) -> Door:
    return next(door for door in DOORS.values() if door.path == path)


def test_readers_write_json() -> None:
    assert all(json.dumps(door.ask) for door in DOORS.values())
