"""The streamed chat dialect: what clients get of what each server sends."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from adapters.base import (
    Assessment,
    Block,
    Delta,
    End,
    Event,
    Failure,
    Finish,
    Key,
    Kind,
    Notations,
    Note,
    Opaque,
    Options,
    Report,
    Usage,
)
from adapters.openai_chat import ChatStream
from proxy.sse import EventDecoder, encode_event
from tests.adapters.providers import PROVIDERS, UNUSUAL
from tests.adapters.relay import added_up, decoded, relayed, texts_of, written
from tests.wire import DONE, chat_chunk, chunk_of, chunks_of, cut, finish_reason_of, is_done, recorded, text_of

PLAIN = Options("asked-model", notations=Notations(weir=False))
NOTED = Options("asked-model")
FLAGGED = Note("content", 3, 9, "Unsafe", "Sexual Content", 0.98765)
ASSESSED = Assessment(True, FLAGGED, {"Sexual Content": 0.98765, "PII": 0.1})
SAFE = Assessment(False, Note("prompt", 0, 4, "Safe", None, 0.99), {"Sexual Content": 0.01, "PII": 0.0})
BLOCK = Block(0, FLAGGED, tokens=27, notice="Stopped.")


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_servers_chunks_become_the_same_text(name: str) -> None:
    chunks, expected = PROVIDERS[name]
    adapter = ChatStream(PLAIN)
    pieces = decoded(adapter, *chunks, DONE)
    assert texts_of(pieces) == expected
    assert isinstance(pieces[-1], End)
    assert sum(isinstance(piece, Finish) for piece in pieces) == 1
    sent = written(adapter, pieces)
    assert is_done(sent)
    for chunk in chunks_of(sent):
        ChatCompletionChunk.model_validate(chunk)
        assert chunk["id"] == chunks[-1]["id"]
        assert chunk["model"] == chunks[-1]["model"]
        assert chunk["created"] == chunks[-1]["created"]
    if name not in UNUSUAL:
        upstream = [chunk for chunk in chunks if chunk["choices"] and "delta" in chunk["choices"][0]]
        upstream = [chunk for chunk in upstream if chunk["choices"][0]["delta"] is not None]
        assert added_up(chunks_of(sent)) == added_up(upstream)


@pytest.mark.parametrize("name", ["en_sky", "zh_intro", "emoji_party", "json_out", "logprobs", "limit"])
@pytest.mark.parametrize("size", [13, 1 << 20])
def test_recorded_streams_come_out_as_they_went_in(name: str, size: int) -> None:
    data = recorded(name)
    adapter, decoder = ChatStream(PLAIN), EventDecoder()
    pieces = [p for chunk in cut(data, size) for event in decoder.feed(chunk) for p in adapter.decode(event)]
    sent = written(adapter, pieces)
    upstream = chunks_of(data)
    assert text_of(sent) == text_of(data) != ""
    assert finish_reason_of(sent) == finish_reason_of(data)
    assert added_up(chunks_of(sent)) == added_up(upstream)
    assert is_done(sent)
    last = chunks_of(sent)[-1]
    assert last["choices"] == []
    assert last["timings"] == upstream[-1]["timings"]


def test_logprobs_are_released_without_their_alternatives() -> None:
    adapter = ChatStream(PLAIN)
    events = EventDecoder().feed(recorded("logprobs"))
    sent = written(adapter, [piece for event in events for piece in adapter.decode(event)])
    entries = [e for c in chunks_of(sent) for s in c["choices"] if s["logprobs"] for e in s["logprobs"]["content"]]
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == text_of(sent)
    assert all(entry.keys() == {"token", "logprob", "bytes", "top_logprobs"} for entry in entries)
    assert all(entry["top_logprobs"] == [] for entry in entries)
    assert adapter.dropped == len(entries)


def test_a_chunk_has_the_shape_that_clients_expect() -> None:
    sent = relayed(
        ChatStream(PLAIN), chat_chunk("hi\u2028", delta={"role": "assistant"}), chat_chunk(finish_reason="stop")
    )
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "some-model"}

    def chunk(delta: Any, finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "choices": [choice]}

    expected = [chunk({"role": "assistant"}, None), chunk({"content": "hi\u2028"}, None), chunk({}, "stop")]
    assert chunks_of(sent) == expected
    assert b" " not in sent.replace(b"data: ", b"")


def test_logprobs_of_a_split_delta_go_with_their_half() -> None:
    entries = [{"token": "ab", "logprob": -1.0, "bytes": None}, {"token": "c", "logprob": -2.0, "bytes": [99]}]
    adapter = ChatStream(PLAIN)
    (delta,) = decoded(adapter, chat_chunk("abc", logprobs={"content": entries}))
    assert isinstance(delta, Delta)
    first, second = (chunks_of(written(adapter, [half]))[0]["choices"][0] for half in delta.split(2))
    assert [entry["token"] for entry in first["logprobs"]["content"]] == ["ab"]
    assert [entry["token"] for entry in second["logprobs"]["content"]] == ["c"]
    assert first["logprobs"]["refusal"] is None


DELTAS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "function_call": (
        {"function_call": {"name": "f", "arguments": "{}"}},
        [{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "{}"}}],
    ),
    "custom tool": (
        {"tool_calls": [{"index": 3, "id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
        [
            {"tool_calls": [{"index": 3, "id": "c", "type": "custom", "custom": {"name": "f", "input": ""}}]},
            {"tool_calls": [{"index": 3, "custom": {"input": "x"}}]},
        ],
    ),
    "arguments before the name": (
        {"tool_calls": [{"index": 0, "id": "c", "function": {"arguments": "{}"}}]},
        [{"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"arguments": "{}"}}]}],
    ),
    "audio": (
        {"audio": {"id": "audio_1", "data": "UklGRg==", "transcript": "hi", "expires_at": 5}},
        [{"audio": {"id": "audio_1", "expires_at": 5}}, {"audio": {"transcript": "hi"}}],
    ),
    "unknown text": ({"thought.x": "hm"}, [{"thought.x": "hm"}]),
    "reasoning": (
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "s", "format": "f", "id": "r_1", "index": 2}]},
        [
            {
                "reasoning_details": [
                    {"type": "reasoning.summary", "index": 2, "summary": "s", "format": "f", "id": "r_1"}
                ]
            }
        ],
    ),
}


@pytest.mark.parametrize("name", DELTAS)
def test_deltas_of_every_sort(name: str) -> None:
    delta, expected = DELTAS[name]
    sent = relayed(ChatStream(PLAIN), chat_chunk(delta=delta))
    assert [chunk["choices"][0]["delta"] for chunk in chunks_of(sent)] == expected


def test_sound_passes_where_unscanned_things_may() -> None:
    adapter = ChatStream(Options("m", allow_unscanned=True))
    sent = relayed(adapter, chat_chunk(delta={"audio": {"data": "UklGRg=="}}))
    assert chunks_of(sent)[0]["choices"][0]["delta"] == {"audio": {"data": "UklGRg=="}}


def test_the_identity_of_a_call_waits_for_its_first_text() -> None:
    first = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "", "arguments": ""}}]}
    second = {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}
    sent = relayed(ChatStream(PLAIN), chat_chunk(delta=first), chat_chunk(delta=second))
    (chunk,) = chunks_of(sent)
    (call,) = chunk["choices"][0]["delta"]["tool_calls"]
    assert call == {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}


def test_a_call_without_an_id_gets_one() -> None:
    adapter = ChatStream(PLAIN)
    texts = [{"name": "f"}, {"arguments": "{"}, {"arguments": "}"}]
    sent = relayed(adapter, *(chat_chunk(delta={"tool_calls": [{"index": 0, "function": t}]}) for t in texts))
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks_of(sent)]
    assert calls[0]["id"].startswith("call_")
    assert calls[1:] == [{"index": 0, "function": {"arguments": "{"}}, {"index": 0, "function": {"arguments": "}"}}]


def test_details_of_reasoning_name_their_format_once() -> None:
    detail = {"type": "reasoning.text", "text": "a", "format": "f", "index": 0}
    sent = relayed(ChatStream(PLAIN), *[chat_chunk(delta={"reasoning_details": [detail]})] * 2)
    details = [chunk["choices"][0]["delta"]["reasoning_details"][0] for chunk in chunks_of(sent)]
    assert details == [detail, {"type": "reasoning.text", "text": "a", "index": 0}]


def test_a_note_lies_beside_its_text() -> None:
    chunk = chat_chunk("some text")
    (sent,) = chunks_of(relayed(ChatStream(NOTED), chunk, note=FLAGGED))
    assert sent["weir"] == {
        "risk_level": "Unsafe",
        "category": "Sexual Content",
        "risk_prob": 0.9877,
        "offset": [3, 9],
        "channel": "content",
    }
    assert "weir" not in chunks_of(relayed(ChatStream(NOTED), chunk))[0]
    assert "weir" not in chunks_of(relayed(ChatStream(PLAIN), chunk, note=FLAGGED))[0]


def test_a_finish_tells_the_worst_of_each_channel() -> None:
    options = Options("m", guard_model="G", notations=Notations(weir=True, openai=True))
    chunk = chat_chunk(finish_reason="stop")
    chunk["choices"][0]["native_finish_reason"] = "end_turn"
    (sent,) = chunks_of(relayed(ChatStream(options), chunk, report=Report((FLAGGED,), SAFE, ASSESSED)))
    assert sent["choices"][0]["finish_reason"] == "stop"
    assert sent["choices"][0]["native_finish_reason"] == "end_turn"
    assert sent["weir"]["channels"]["content"]["risk_level"] == "Unsafe"
    assert sent["weir"]["prompt"]["risk_level"] == "Safe"
    parsed = ChatCompletionChunk.model_validate(sent).moderation
    assert parsed is not None
    assert parsed.input.type == "moderation_results"
    assert parsed.output.type == "moderation_results"
    assert parsed.output.results[0].categories == {"sexual_content": True, "pii": False}


def test_a_cut_is_a_content_filter_finish() -> None:
    adapter = ChatStream(Options("m", guard_model="G", notations=Notations(weir=True, openai=True)))
    pieces = decoded(adapter, chat_chunk("text", delta={"role": "assistant"}))
    written(adapter, pieces)
    (event,) = adapter.encode_block(BLOCK, Report(prompt=SAFE, answer=ASSESSED))
    (chunk,) = chunks_of(encode_event(event))
    ChatCompletionChunk.model_validate(chunk)
    assert chunk["id"] == "chatcmpl-1"
    choice = {"index": 0, "delta": {"content": "Stopped."}, "logprobs": None, "finish_reason": "content_filter"}
    assert chunk["choices"] == [choice]
    assert chunk["weir"] == {
        "action": "block",
        "risk_level": "Unsafe",
        "category": "Sexual Content",
        "risk_prob": 0.9877,
        "channel": "content",
        "offset": 3,
        "tokens": 27,
    }
    assert chunk["moderation"]["output"]["results"][0]["flagged"] is True
    assert "error" not in chunk


def test_a_cut_before_any_chunk_is_a_whole_answer() -> None:
    adapter = ChatStream(PLAIN)
    events = [*adapter.encode_block(BLOCK, Report()), *adapter.encode_end()]
    sent = b"".join(encode_event(event) for event in events)
    (chunk,) = chunks_of(sent)
    ChatCompletionChunk.model_validate(chunk)
    assert chunk["model"] == "asked-model"
    assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": "Stopped."}
    assert "weir" not in chunk
    assert is_done(sent)


def test_estimated_usage_says_so() -> None:
    for options in (NOTED, PLAIN):
        (event,) = ChatStream(options).encode_usage(Usage(7, 5))
        chunk = json.loads(event.data)
        ChatCompletionChunk.model_validate(chunk)
        assert chunk["choices"] == []
        assert chunk["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        assert chunk["weir"] == {"usage": "estimated"}


def test_a_failure_is_an_error_event_without_an_end() -> None:
    (event,) = ChatStream(PLAIN).encode_failure(Failure("It broke.", code="guard_down"))
    assert json.loads(event.data) == {
        "error": {"message": "It broke.", "type": "api_error", "param": None, "code": "guard_down"}
    }


def test_choices_are_kept_apart() -> None:
    options = Options("m", choices=2, notations=Notations(weir=False))
    said = [chunk_of({"index": i, "delta": {"content": t}}) for i, t in ((1, "b"), (0, "a"), (1, "B"), (0, "A"))]
    ends = [chat_chunk(index=1, finish_reason="length"), chat_chunk(index=0, finish_reason="stop")]
    sent = relayed(ChatStream(options), *said, *ends, DONE)
    assert [text_of(sent, index=i) for i in (0, 1)] == ["aA", "bB"]
    assert [finish_reason_of(sent, i) for i in (0, 1)] == ["stop", "length"]


def test_opaque_pieces_are_written_as_they_are() -> None:
    adapter = ChatStream(PLAIN)
    pieces = decoded(adapter, chunk_of(usage={"prompt_tokens": 1}))
    assert isinstance(pieces[0], Opaque)
    assert chunks_of(written(adapter, pieces))[0]["usage"] == {"prompt_tokens": 1}


NOTES = st.builds(
    Note,
    st.sampled_from(["content"]),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
    st.sampled_from(["Safe", "Controversial", "Unsafe"]),
    st.sampled_from([None, "Violent", "Sexual Content"]),
    st.floats(0.0, 1.0),
)
WRITTEN = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(WRITTEN, st.integers(0, 9), st.none() | NOTES, st.builds(Notations, st.booleans(), st.booleans(), st.booleans()))
def test_the_short_way_of_a_piece_of_content_writes_what_the_long_one_does(
    text: str, choice: int, note: Note | None, notations: Notations
) -> None:
    options = Options("m", choices=10, notations=notations)
    [read] = ChatStream(options).decode(Event(json.dumps(chat_chunk("x"))))
    assert isinstance(read, Delta)
    source = read.source
    piece = Delta(Key(choice, "content"), Kind.CONTENT, text, source)
    plain, long = ChatStream(options)._plain(piece, note), ChatStream(options)._at_length(piece, note)
    assert plain == (None if notations.azure else long)
    assert ChatStream(options).encode(piece, note) == [long]
