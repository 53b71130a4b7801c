"""What each dialect's upstream says beside the text, under one set of names."""

import json

import pytest

from adapters import ENDPOINTS
from adapters.base import Delta, Event, Key, Kind, Options
from proxy.framing import BodyFraming, EventFraming
from proxy.telemetry.answer import AnswerFacts, watched
from tests.doors import DOORS, Door
from tests.driver import DONE, answer, chunk


class Notes:
    def __init__(self) -> None:
        self.facts = AnswerFacts()


def facts_of(path: str, chunks: list[bytes], *, is_body: bool = False) -> AnswerFacts:
    notes = Notes()
    endpoint = ENDPOINTS[path]
    adapter = watched((endpoint.body if is_body else endpoint.stream)(Options(model="m")), notes)
    framing = BodyFraming(1 << 20) if is_body else EventFraming(1 << 20)
    for event in [*(one for data in chunks for one in framing.feed(data)), *framing.finish()]:
        adapter.decode(event)
    return notes.facts


@pytest.mark.parametrize("is_body", [False, True])
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_each_door_says_why_it_ended(door: Door, is_body: bool) -> None:
    facts = facts_of(door.path, door.chunks("one two", is_body=is_body), is_body=is_body)
    assert set(facts.reasons) == {0}
    assert facts.model == "m"
    assert facts.id


def test_chat_counts() -> None:
    usage = {
        "prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 3},
    }  # fmt: skip
    facts = facts_of("/v1/chat/completions", [*answer(["one"])[:-1], chunk({}, usage=usage), DONE])
    assert facts.counts() == {
        "input_tokens": 12, "output_tokens": 8, "cache_read.input_tokens": 5, "reasoning.output_tokens": 3,
    }  # fmt: skip


def test_anthropics_cache_is_a_part_of_what_was_read() -> None:
    facts = AnswerFacts()
    facts.usage = {
        "input_tokens": 3,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 2,
        "output_tokens": 9,
    }
    assert facts.counts() == {
        "input_tokens": 15, "output_tokens": 9, "cache_read.input_tokens": 10, "cache_creation.input_tokens": 2,
    }  # fmt: skip


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": "12"}, {"prompt_tokens": True}, {"prompt_tokens_details": 3}])
def test_what_is_no_count_is_none(usage: dict[str, object]) -> None:
    facts = AnswerFacts()
    facts.usage = usage
    assert facts.counts() == {}


def test_no_text_is_ever_looked_at_and_the_rest_is_the_adapters() -> None:
    notes = Notes()
    adapter = watched(ENDPOINTS["/v1/chat/completions"].stream(Options(model="m")), notes)
    data = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {"content": "canary"}, "finish_reason": None}
    [piece] = adapter.decode(Event(json.dumps(data | {"choices": [choice]})))
    assert isinstance(piece, Delta)
    assert (piece.key, piece.kind) == (Key(0, "content"), Kind.CONTENT)
    assert "canary" not in repr(vars(notes.facts))
    assert adapter.dropped == 0
    assert watched(adapter, None) is adapter
