"""Chat in both shapes, over random answers: nothing lost, nothing let through, nothing that crashes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import ENDPOINTS
from adapters.base import Delta, Notations, Options, Piece
from adapters.errors import AdapterError
from adapters.openai_chat import ChatStream
from adapters.openai_chat_body import ChatBody
from tests.adapters.relay import added_up, body_sent, decoded, event_of, texts_of, written
from tests.wire import DONE, body_of, chat_chunk, chunk_of, chunks_of

OPTIONS = Options("m", choices=2, notations=Notations(weir=False))
CANARY = "canary text"


def test_the_table_of_endpoints() -> None:
    endpoint = ENDPOINTS["/v1/chat/completions"]
    assert (endpoint.upstream_path, endpoint.stream, endpoint.body) == ("/chat/completions", ChatStream, ChatBody)


# Random answers.

TEXTS = st.text(min_size=1, max_size=5)
PLAIN_DELTAS = st.sampled_from(["content", "refusal", "reasoning_content"]).flatmap(
    lambda name: TEXTS.map(lambda text: {name: text})
)


def _call(index: int, text: str, is_first: bool) -> dict[str, Any]:
    first = {"id": f"call_{index}", "type": "function"} if is_first else {}
    function = {"name": f"f{index}", "arguments": text} if is_first else {"arguments": text}
    return {"tool_calls": [{"index": index, **first, "function": function}]}


@st.composite
def answers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Two choices, interleaved: any deltas, tool calls opened in order, then their finishes."""
    opened = {0: 0, 1: 0}
    chunks = [chat_chunk("", index=index, delta={"role": "assistant"}) for index in (0, 1)]
    for _ in range(draw(st.integers(0, 15))):
        index = draw(st.integers(0, 1))
        if draw(st.booleans()):
            chunks.append(chat_chunk(index=index, delta=draw(PLAIN_DELTAS)))
            continue
        call = draw(st.integers(0, min(opened[index], 3)))
        chunks.append(chat_chunk(index=index, delta=_call(call, draw(TEXTS), call == opened[index])))
        opened[index] = max(opened[index], call + 1)
    reasons = st.sampled_from(["stop", "length", "tool_calls"])
    return chunks + [chat_chunk(index=index, finish_reason=draw(reasons)) for index in draw(st.permutations([0, 1]))]


@given(answers())
@settings(max_examples=60, deadline=None)
def test_what_is_released_adds_up_to_what_was_said(chunks: list[dict[str, Any]]) -> None:
    adapter = ChatStream(OPTIONS)
    sent = written(adapter, decoded(adapter, *chunks, DONE))
    assert added_up(chunks_of(sent)) == added_up(chunks)
    assert adapter.dropped == 0


@given(answers(), st.data())
@settings(max_examples=40, deadline=None)
def test_split_deltas_add_up_to_the_same(chunks: list[dict[str, Any]], data: st.DataObject) -> None:
    adapter = ChatStream(OPTIONS)
    pieces: list[Piece] = []
    for piece in decoded(adapter, *chunks, DONE):
        if isinstance(piece, Delta) and len(piece.text) > 1:
            pieces += piece.split(data.draw(st.integers(1, len(piece.text) - 1)))
        else:
            pieces.append(piece)
    assert added_up(chunks_of(written(adapter, pieces))) == added_up(chunks)


@given(answers())
@settings(max_examples=40, deadline=None)
def test_a_body_says_what_the_stream_says(chunks: list[dict[str, Any]]) -> None:
    pieces = decoded(ChatStream(OPTIONS), *chunks, DONE)
    upstream = [message_of(index, choice) for index, choice in added_up(chunks).items()]
    adapter = ChatBody(OPTIONS)
    whole = decoded(adapter, body_of(*upstream))
    sent = body_sent(written(adapter, whole))["choices"]
    for index in (0, 1):
        assert texts_of(whole, index) == texts_of(pieces, index)
        assert sent[index] == upstream[index] | {"logprobs": None}


def message_of(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    """A choice as a body has it."""
    calls = [
        {"id": call_id, "type": kind, "function": {"name": name, "arguments": arguments}}
        for call_id, kind, name, arguments in choice["calls"]
    ]
    message = {"role": "assistant", **choice["texts"], "tool_calls": calls}
    return {"index": index, "message": message, "finish_reason": choice["finish_reason"]}


# Anything at all.

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([1 << 80, "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["index", "text", "type", "name", "function", "content", "token", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
RICH_DELTA: dict[str, Any] = {
    "role": "assistant",
    "content": [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": [{"type": "text", "text": "b"}]}],
    "refusal": "a",
    "reasoning_content": "a",
    "reasoning": "a",
    "reasoning_details": [{"type": "reasoning.text", "text": "a", "index": 0, "format": "f", "id": "i"}],
    "function_call": {"name": "f", "arguments": "{}"},
    "tool_calls": [
        {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"index": 1, "id": "d", "type": "custom", "custom": {"name": "f", "input": "a"}},
    ],
    "audio": {"id": "a", "transcript": "a", "data": "aaaa", "expires_at": 5},
    "odd": "a",
}
ENTRY = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -1.0, "bytes": [97]}]}


def rich(shape: str) -> dict[str, Any]:
    """An event with a value in every place that is read."""
    choice = {"index": 0, shape: RICH_DELTA, "finish_reason": "stop", "native_finish_reason": "stop"}
    other = {"index": 1, shape: {"content": "a"}, "logprobs": {"content": [ENTRY], "refusal": [ENTRY]}}
    usage = {"prompt_tokens": 1, "details": {"cached_tokens": 1}}
    more = {"system_fingerprint": "f", "service_tier": "s", "provider": "p", "usage": usage, "timings": {"a": 1.5}}
    event: dict[str, Any] = json.loads(json.dumps(chunk_of(choice, other, **more)))
    return event


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, one in items for inner in paths_of(one, (*path, key)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


ADAPTERS = [("delta", ChatStream), ("message", ChatBody)]
PATHS = {shape: paths_of(rich(shape)) for shape, _ in ADAPTERS}


def repaired(piece: Piece) -> Piece:
    """As the stream does: lone surrogates never reach `encode`."""
    if not isinstance(piece, Delta):
        return piece
    text = piece.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Delta(piece.key, piece.kind, text, piece.source, piece.extra, piece.logprobs)


def survive(adapter: ChatStream | ChatBody, event: Any) -> None:
    """Pieces that can be written, or an AdapterError."""
    try:
        pieces = adapter.decode(event_of(json.dumps(event)))
    except AdapterError as exc:
        refusal = str(exc)
        assert len(refusal) < 100
        return
    assert all(isinstance(piece.text, str) and piece.text for piece in pieces if isinstance(piece, Delta))
    chunks_of(written(adapter, map(repaired, pieces)))


@pytest.mark.parametrize(("shape", "adapter"), ADAPTERS)
@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_any_json_in_any_place_is_read_or_refused(
    shape: str, adapter: type[ChatStream | ChatBody], data: st.DataObject
) -> None:
    event: Any = rich(shape)
    for path in data.draw(st.lists(st.sampled_from(PATHS[shape]), min_size=1, max_size=3)):
        try:
            if path:
                at(event, path[:-1])[path[-1]] = data.draw(JSON)
            else:
                event = data.draw(JSON)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    survive(adapter(OPTIONS), event)


# Places in which a value is a name or a number: text there must not pass.
METADATA = ["id", "created", "model", "object", "system_fingerprint", "service_tier", "provider", "usage", "timings"]


@pytest.mark.parametrize(("shape", "adapter"), ADAPTERS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_text_in_an_unknown_place_does_not_pass(
    shape: str, adapter: type[ChatStream | ChatBody], data: st.DataObject
) -> None:
    event = rich(shape)
    name = data.draw(st.sampled_from(["x", "images", "provider_specific_fields", "parsed", CANARY]))
    value = data.draw(
        st.sampled_from([CANARY, [CANARY], {"text": CANARY}, {CANARY: 1}, {"content": {"text": [CANARY]}}])
    )
    path = data.draw(st.sampled_from([path for path in PATHS[shape] if isinstance(at(event, path), dict)]))
    at(event, path)[name] = value
    chat = adapter(Options("m", choices=2))
    pieces = chat.decode(event_of(event))
    known = [p for p in pieces if not (isinstance(p, Delta) and p.key.channel.startswith("delta."))]
    assert CANARY not in written(chat, known).decode()
    assert chat.dropped or len(known) < len(pieces)


@pytest.mark.parametrize(("shape", "adapter"), ADAPTERS)
@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("value", [CANARY, {"a": CANARY}, {"a": {"b": [CANARY]}}, [CANARY], {CANARY: 1}])
def test_text_in_place_of_a_name_does_not_pass(
    shape: str, adapter: type[ChatStream | ChatBody], name: str, value: Any
) -> None:
    chat = adapter(OPTIONS)
    sent = written(chat, chat.decode(event_of(rich(shape) | {name: value})))
    assert CANARY not in sent.decode()
    assert b"chat.completion" in sent
