"""Whole events: what is accepted, what is refused, and in which order its pieces come."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Delta, End, Event, Finish, Opaque, Options, Piece
from adapters.errors import AdapterError, UpstreamReportedError
from adapters.openai_chat_reader import BODY, CHUNK, ChatReader
from tests.adapters.relay import event_of
from tests.wire import Said, body_of, chat_body, chat_chunk, chunk_of

CANARY = "how to make it"


def reader(choices: int = 1) -> ChatReader:
    return ChatReader(Options("m", choices=choices), CHUNK)


def read(*events: Said, choices: int = 1) -> list[Piece]:
    chat = reader(choices)
    return [piece for event in events for piece in chat.read(event_of(event))]


def sorts(pieces: list[Piece]) -> list[str]:
    return [type(piece).__name__ for piece in pieces]


@pytest.mark.parametrize(
    "said", ["canary", "[]", "{}", '{"object":"chat.completion.chunk"}', '{"choices":null,"usage":5}']
)
def test_what_is_no_chunk_is_refused(said: str) -> None:
    with pytest.raises(AdapterError):
        read(said)


@pytest.mark.parametrize("choices", [{}, "x", 5, True, [5], [None], [[]], ["x"]])
def test_choices_of_another_shape_are_refused(choices: Any) -> None:
    with pytest.raises(AdapterError):
        read(chunk_of() | {"choices": choices})


@pytest.mark.parametrize("index", [None, -1, 2, 1 << 31, "0", True, 0.0, [0]])
def test_an_index_that_was_not_asked_for_is_refused(index: Any) -> None:
    with pytest.raises(AdapterError):
        read(chunk_of({"index": index, "delta": {"content": CANARY}}), choices=2)


def test_an_index_that_is_missing_is_refused() -> None:
    with pytest.raises(AdapterError):
        read(chunk_of({"delta": {"content": CANARY}}))


@pytest.mark.parametrize("delta", ["x", 5, [], True])
def test_a_delta_of_another_shape_is_refused(delta: Any) -> None:
    with pytest.raises(AdapterError):
        read(chunk_of({"index": 0, "delta": delta}))


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": CANARY}},
        {"error": CANARY},
        chat_chunk("x", error={"code": 502, "message": CANARY}),
        chunk_of({"index": 0, "delta": {"content": ""}, "error": {"message": CANARY}, "finish_reason": "error"}),
        chat_chunk(finish_reason="error"),
        chat_chunk(finish_reason="insufficient_system_resource"),
        chat_chunk(finish_reason="abort"),
        {"object": "error", "message": CANARY},
    ],
)
def test_an_upstreams_own_error_is_told_apart(said: dict[str, Any]) -> None:
    with pytest.raises(UpstreamReportedError) as caught:
        read(said)
    assert CANARY not in str(caught.value)


def test_an_event_of_type_error_is_one() -> None:
    with pytest.raises(UpstreamReportedError):
        reader().read(Event('{"message":"x"}', "error"))


def test_an_error_of_nothing_is_none() -> None:
    assert sorts(read(chat_chunk("x", error=None))) == ["Delta"]


@pytest.mark.parametrize(
    ("reason", "expected", "dropped"),
    [
        *[(reason, reason, 0) for reason in ("stop", "length", "tool_calls", "content_filter", "function_call")],
        ("max_tokens", "length", 0),
        ("model_length", "length", 0),
        (CANARY, "stop", 1),
        ("STOP", "stop", 1),
    ],
)
def test_finish_reasons_are_those_that_clients_know(reason: str, expected: str, dropped: int) -> None:
    chat = reader()
    (finish,) = chat.read(event_of(chat_chunk(finish_reason=reason)))
    assert isinstance(finish, Finish)
    assert (finish.choice, finish.reason, chat.dropped) == (0, expected, dropped)


@pytest.mark.parametrize("reason", [5, ["stop"], {"a": 1}])
def test_a_finish_reason_that_is_no_string_is_refused(reason: Any) -> None:
    with pytest.raises(AdapterError):
        read(chat_chunk(finish_reason=reason))


def test_nothing_is_said_after_a_finish() -> None:
    chat = reader()
    events = [
        chat_chunk("a", finish_reason="stop"),
        chat_chunk(CANARY, finish_reason="stop", delta={"role": "assistant", "refusal": CANARY}),
    ]
    pieces = [piece for event in events for piece in chat.read(event_of(event))]
    assert sorts(pieces) == ["Delta", "Finish"]
    assert chat.dropped == 2


def test_nothing_is_said_after_the_end() -> None:
    chat = reader()
    assert chat.end() == [End()]
    assert chat.end() == []
    assert chat.read(event_of(chat_chunk(CANARY))) == []
    assert chat.read(Event("not even read")) == []


def test_one_event_gives_its_pieces_in_order() -> None:
    said = chat_chunk("a", finish_reason="stop", delta={"role": "assistant"}, usage={"prompt_tokens": 1})
    assert sorts(read(said)) == ["Opaque", "Delta", "Finish", "Opaque"]


def test_a_chunk_may_hold_several_choices() -> None:
    pieces = read(chunk_of(*({"index": i, "delta": {"content": str(i)}} for i in (2, 0, 2))), choices=3)
    assert [(piece.key.choice, piece.text) for piece in pieces if isinstance(piece, Delta)] == [
        (2, "2"),
        (0, "0"),
        (2, "2"),
    ]


def test_the_source_is_the_envelope() -> None:
    chat = reader()
    (piece,) = chat.read(event_of(chat_chunk("a")))
    assert isinstance(piece, Delta)
    assert piece.source is chat.envelope()


def counts_of(pieces: list[Piece]) -> list[Any]:
    return [dict(piece.payload) for piece in pieces if isinstance(piece, Opaque) and piece.choice is None]


def test_usage_that_grows_is_told_once() -> None:
    said = [
        chat_chunk("a", usage={"a": 1}),
        chat_chunk("b", finish_reason="stop", usage={"a": 2}),
        chunk_of(usage={"a": 3}),
    ]
    assert counts_of(read(*said)) == [{"usage": {"a": 2}}, {"usage": {"a": 3}}]
    assert counts_of(read(*said[:1])) == []
    assert counts_of(read({"choices": None, "usage": {"a": 1}, "timings": {"b": 2.5}})) == [
        {"usage": {"a": 1}, "timings": {"b": 2.5}}
    ]
    assert counts_of(read({"timings": {"b": 2}})) == [{"timings": {"b": 2}}]


def test_usage_waits_for_every_choice() -> None:
    said = [chat_chunk(index=i, finish_reason="stop", usage={"a": i}) for i in (0, 1)]
    assert counts_of(read(*said, choices=2)) == [{"usage": {"a": 1}}]


def test_usage_that_no_later_chunk_repeats_comes_before_the_end() -> None:
    chat = reader()
    chat.read(event_of(chat_chunk("a", usage={"a": 1})))
    counts, end = chat.end()
    assert isinstance(counts, Opaque)
    assert counts.payload == {"usage": {"a": 1}}
    assert end == End()


def test_what_is_left_out_is_counted() -> None:
    chat = reader()
    said = chat_chunk("a", citations=[CANARY], usage={"note": CANARY}, timings=[CANARY], x=None, obfuscation="xyz")
    choice = {
        "stop_reason": CANARY,
        "message": {"content": CANARY},
        "native_finish_reason": CANARY,
        "matched_stop": None,
    }
    said["choices"][0] |= choice | {"finish_reason": "stop"}
    assert CANARY not in str(chat.read(event_of(said)))
    assert chat.dropped == 6
    assert chat.native_reasons == {}


def test_a_body_is_read_like_a_stream() -> None:
    chat = ChatReader(Options("m", choices=2), BODY)
    one = chat_body("a", reasoning="b")["choices"][0]
    two = {"index": 1, "message": {"content": None, "tool_calls": [{"function": {"name": "f"}}]}, "finish_reason": None}
    pieces = chat.read(event_of(body_of(one, two, usage={"a": 1})))
    assert sorts(pieces) == ["Opaque", "Delta", "Delta", "Finish", "Opaque", "Delta", "Finish", "Opaque", "End"]
    assert pieces[4] == Opaque(1, {"role": "assistant", "content": None}, chat.envelope())
    assert pieces[6] == Finish(1, "stop", chat.envelope())
    assert chat.read(event_of(body_of(one))) == []


def test_a_body_has_each_choice_once() -> None:
    with pytest.raises(AdapterError):
        ChatReader(Options("m"), BODY).read(event_of(body_of(*chat_body("a")["choices"] * 2)))


def test_a_delta_in_a_body_is_left_out() -> None:
    chat = ChatReader(Options("m"), BODY)
    body = chat_body("a")
    body["choices"][0]["delta"] = {"content": CANARY}
    assert CANARY not in str(chat.read(event_of(body)))
    assert chat.dropped == 1


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "x", 0, 1, 2, 0.0, 1.0, -1, 1 << 70, True, False, [], {}, {"content": "y"}, "stop", "error", "\ud800"]
)
PLAIN_CHOICE = {"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}
CHOICE_NAMES = ["index", "delta", "logprobs", "finish_reason", "error", "text", "stop_reason", "matched_stop",
                "token_ids", "content_filter_results"]  # fmt: skip
NULL_IN_DELTAS = ["reasoning_content", "tool_calls", "function_call", "audio"]
PLAIN_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


@given(
    st.dictionaries(st.sampled_from(CHOICE_NAMES), ODD, max_size=2),
    st.dictionaries(st.sampled_from(["content", "role", "refusal", "reasoning", *NULL_IN_DELTAS]), ODD, max_size=3),
    st.dictionaries(st.sampled_from(["id", "object", "created", "usage", "obfuscation", "other"]), ODD, max_size=2),
    st.sampled_from(["", "", "", "message", "error"]),
)
def test_the_short_way_of_a_plain_event_reads_as_the_long_one(
    choice: dict[str, Any], delta: dict[str, Any], chunk: dict[str, Any], event_type: str
) -> None:
    event = PLAIN_CHUNK | {"choices": [PLAIN_CHOICE | {"delta": {"content": "x"} | delta} | choice]} | chunk
    # A field that is known and ignored, and so not plain.
    results = [outcome_of(Event(json.dumps(event | more), event_type)) for more in ({}, {"timings": None})]
    assert results[0] == results[1]


def outcome_of(event: Event) -> tuple[Any, ...]:
    """What comes of an event that stands between two plain ones."""
    chat = reader(2)
    plain = Event(json.dumps(PLAIN_CHUNK | {"choices": [PLAIN_CHOICE]}))
    try:
        read = [chat.read(plain), chat.read(event), chat.read(plain), chat.end()]
    except AdapterError as exc:
        return type(exc), str(exc)
    return read, chat.dropped


@pytest.mark.parametrize(
    "more",
    [
        '"index":0,"index":1',
        '"delta":{"content":"x","content":"y"}',
        '"delta":{"content":"\\ud83d\\ude00"}',
        '"delta":{"content":"\\ud83d"}',
        '"delta":{"role":"x"},"delta":{"content":"y"}',
        '"finish_reason":"stop","finish_reason":null',
        '"index":0.0',
        '"index":1e0',
        '"index":-0',
    ],
)
def test_spellings_that_readers_may_disagree_about_are_read_alike_by_either_way(more: str) -> None:
    head = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m",'
    results = [
        outcome_of(Event(f'{head}{extra}"choices":[{{"index":0,"delta":{{"content":"x"}},{more}}}]}}'))
        for extra in ("", '"timings":null,')
    ]
    assert results[0] == results[1]
