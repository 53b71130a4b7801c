"""The older dialect: one text a choice, logprobs as columns."""

import json
from typing import Any

import pytest
from openai.types import Completion

from adapters.base import Block, Delta, Notations, Note, Options, Report
from adapters.errors import AdapterError
from adapters.openai_completions import CompletionBody, CompletionStream, pair, written_logprobs
from tests.adapters.relay import body_sent, decoded, event_of, relayed, written
from tests.doors import completion_body, completion_chunk
from tests.wire import DONE, chunks_of, is_done

PLAIN = Options("asked-model", notations=Notations(weir=False))
LOGPROBS: dict[str, list[Any]] = {
    "tokens": ["Hel", "lo", "bytes:\\xe4\\xb8", "bytes:\\x96"],
    "token_logprobs": [None, -0.5, -1, -2.5],
    "top_logprobs": [None, {"lo": -0.5, " CANARY": -3}, {"a": -1}, {}],
    "text_offset": [0, 3, 5, 5],
}


def said(raw: bytes) -> Any:
    return json.loads(raw.removeprefix(b"data: "))


def test_a_stream_has_the_shape_that_clients_expect() -> None:
    sent = relayed(CompletionStream(PLAIN), said(completion_chunk("hi")), said(completion_chunk("", "length")), DONE)
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    for chunk, text, reason in zip(chunks_of(sent), ["hi", ""], [None, "length"], strict=True):
        assert chunk == {**head, "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": reason}]}
        Completion.model_validate(chunk | {"choices": [chunk["choices"][0] | {"finish_reason": "stop"}]})
    assert is_done(sent)


def test_a_cut_has_the_shape_that_clients_expect() -> None:
    adapter = CompletionStream(PLAIN)
    block = Block(0, Note("content", 3, 9, "Unsafe", "Violent", 0.9), tokens=2)
    [event] = adapter.encode_block(block, Report())
    assert said(event.data.encode())["choices"] == [
        {"text": "", "index": 0, "logprobs": None, "finish_reason": "content_filter"}
    ]
    assert said(event.data.encode())["id"].startswith("cmpl-")


def test_a_body_of_several_choices() -> None:
    adapter = CompletionBody(Options("m", choices=2, notations=Notations(weir=False)))
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    sent = body_sent(relayed(adapter, said(completion_body("one", "two", usage=usage))))
    assert [choice["text"] for choice in sent["choices"]] == ["one", "two"]
    assert sent["usage"] == usage
    Completion.model_validate(sent)


def test_logprobs_that_repeat_the_text_leave_with_it() -> None:
    adapter = CompletionBody(PLAIN)
    body = said(completion_body("Hello世"))
    body["choices"][0]["logprobs"] = LOGPROBS
    sent = body_sent(relayed(adapter, body))["choices"][0]["logprobs"]
    assert sent == LOGPROBS | {"top_logprobs": None}
    assert adapter.dropped == 2


def test_alternatives_leave_where_unscanned_things_may() -> None:
    adapter = CompletionStream(Options("m", allow_unscanned=True))
    sent = relayed(adapter, said(completion_chunk("Hello世", logprobs=LOGPROBS)))
    assert chunks_of(sent)[0]["choices"][0]["logprobs"] == LOGPROBS
    assert adapter.dropped == 0


def test_logprobs_of_a_split_text_go_with_their_half() -> None:
    adapter = CompletionStream(PLAIN)
    [delta] = decoded(adapter, said(completion_chunk("Hello世", logprobs=LOGPROBS)))
    assert isinstance(delta, Delta)
    first, second = (chunks_of(written(adapter, [half]))[0]["choices"][0] for half in delta.split(4))
    assert (first["text"], first["logprobs"]["tokens"]) == ("Hell", ["Hel"])
    assert second["logprobs"]["tokens"] == LOGPROBS["tokens"][1:]


@pytest.mark.parametrize(
    ("logprobs", "dropped"),
    [
        ({**LOGPROBS, "tokens": ["Hel", "CANARY", "bytes:\\xe4\\xb8", "bytes:\\x96"]}, 4),
        ({**LOGPROBS, "tokens": ["Hello世 CANARY"]}, 1),
        ({**LOGPROBS, "tokens": [1, 2]}, 2),
        ({**LOGPROBS, "tokens": "Hello世"}, 1),
        ({**LOGPROBS, "token_logprobs": ["CANARY"] * 4}, 4),
        ({**LOGPROBS, "tokens": ["\ud800"]}, 1),
        ("CANARY", 1),
        ([LOGPROBS], 1),
        ({"content": [{"token": "CANARY"}]}, 1),
    ],
)
def test_logprobs_that_do_not_repeat_the_text_are_left_out(logprobs: Any, dropped: int) -> None:
    paired, left_out = pair(logprobs, "Hello世", keep_alternatives=False)
    assert paired == ()
    assert left_out == dropped
    assert written_logprobs([]) is None


def test_a_closing_token_behind_the_text_is_left_out_alone() -> None:
    closing = {name: [*column, None] for name, column in LOGPROBS.items()} | {"tokens": [*LOGPROBS["tokens"], "</s>"]}
    paired, left_out = pair(closing, "Hello世", keep_alternatives=True)
    assert [entry.entry["token"] for entry in paired] == LOGPROBS["tokens"]
    assert left_out == 1
    assert pair(LOGPROBS, "\ud800", keep_alternatives=True) == ((), 4)


def test_odd_offsets_and_alternatives_are_numbers_or_nothing() -> None:
    odd = {**LOGPROBS, "text_offset": ["CANARY"], "top_logprobs": ["CANARY", {"a": "CANARY", "\ud800": 1, "b": 2}]}
    paired, _ = pair(odd, "Hello世", keep_alternatives=True)
    written_columns = written_logprobs([entry.entry for entry in paired])
    assert written_columns is not None
    assert written_columns["text_offset"] == [0, 0, 0, 0]
    assert written_columns["top_logprobs"] == [None, {"b": 2}, None, None]


@pytest.mark.parametrize("text", [1, ["a"], {"a": 1}, True])
def test_a_text_that_is_none_is_refused(text: Any) -> None:
    with pytest.raises(AdapterError):
        CompletionStream(PLAIN).decode(event_of(said(completion_chunk(text))))


def test_fields_of_no_known_use_are_left_out_and_counted() -> None:
    chunk = said(completion_chunk("hi"))
    chunk["choices"][0] |= {"reasoning": "CANARY", "delta": {"content": "CANARY"}, "message": {"content": "CANARY"}}
    adapter = CompletionStream(PLAIN)
    assert b"CANARY" not in relayed(adapter, chunk | {"completion_probabilities": ["CANARY"]})
    assert adapter.dropped == 4
    lone = said(completion_chunk("", logprobs=LOGPROBS))
    assert b"Hel" not in relayed(adapter, lone)
    assert adapter.dropped == 5
