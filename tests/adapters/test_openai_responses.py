"""What clients get of a response: every repetition is of what was released."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response

from adapters.base import Assessment, Block, Delta, Failure, Notations, Note, Options, Piece, Report, Usage
from adapters.errors import AdapterError
from adapters.openai_responses import ResponsesBody, ResponsesStream
from proxy.sse import encode_event
from tests.adapters.relay import body_sent, decoded, event_of, relayed, written
from tests.adapters.test_chat_properties import CANARY, JSON, at, paths_of, repaired
from tests.doors import (
    RESPONSE,
    RESPONSE_USAGE,
    call_item,
    call_item_events,
    events_of,
    message_item,
    message_item_events,
    response_body,
    response_events,
)

PLAIN = Options("asked-model", notations=Notations(weir=False))
NOTED = Options("asked-model", guard_model="G", notations=Notations(weir=True, openai=True))
FLAGGED = Note("content", 3, 9, "Unsafe", "Sexual Content", 0.98765)
LOGPROBS = [{"token": "one", "bytes": [111, 110, 101], "logprob": -0.5, "top_logprobs": []}]


def block_of(notice: str) -> Block:
    return Block(0, FLAGGED, tokens=27, notice=notice)


def reasoning_events(index: int) -> list[dict[str, Any]]:
    place = {"item_id": "rs_1", "output_index": index, "summary_index": 0}
    part = {"type": "summary_text", "text": "hm"}
    item = {"id": "rs_1", "type": "reasoning", "status": "completed", "summary": [part], "content": []}
    return [
        {
            "type": "response.output_item.added",
            "output_index": index,
            "item": item | {"summary": [], "status": "in_progress"},
        },
        {"type": "response.reasoning_summary_part.added", **place, "part": part | {"text": ""}},
        {"type": "response.reasoning_summary_text.delta", **place, "delta": "hm"},
        {"type": "response.reasoning_summary_text.done", **place, "text": "hm"},
        {"type": "response.reasoning_summary_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


WHOLE = response_events(
    reasoning_events(0), message_item_events(["one", " two"], 1), call_item_events(2, "f", ["{", "}"])
)


def test_a_stream_that_is_released_whole_is_the_same_stream() -> None:
    assert events_of(relayed(ResponsesStream(PLAIN), *WHOLE)) == WHOLE


def test_events_are_numbered_by_us_and_named_twice() -> None:
    lame = [{key: value for key, value in event.items() if key != "sequence_number"} for event in WHOLE]
    sent = relayed(ResponsesStream(PLAIN), *lame)
    assert [event["sequence_number"] for event in events_of(sent)] == list(range(len(WHOLE)))
    assert sent.startswith(b'event: response.created\ndata: {"type":"response.created","sequence_number":0,')


def test_logprobs_are_told_with_their_text_and_at_its_end() -> None:
    events = message_item_events(["one"])
    events[2]["logprobs"] = [LOGPROBS[0] | {"bytes": None, "top_logprobs": [{"token": "CANARY", "logprob": -1}]}]
    adapter = ResponsesStream(PLAIN)
    sent = events_of(relayed(adapter, *events))
    told = {event["type"]: event["logprobs"] for event in sent if "logprobs" in event}
    assert told == {"response.output_text.delta": LOGPROBS, "response.output_text.done": LOGPROBS}
    assert adapter.dropped == 1


def test_a_search_and_a_citation_are_told_whole() -> None:
    search = {
        "id": "ws_1",
        "type": "web_search_call",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    }
    citation = {"type": "url_citation", "url": "https://x.test", "title": "t", "start_index": 0, "end_index": 3}
    cited = message_item("one", 1)
    cited["content"][0]["annotations"] = [citation]
    sent = events_of(relayed(ResponsesStream(PLAIN), *response_events(
        [{"type": "response.output_item.done", "output_index": 0, "item": search}],
        [*message_item_events(["one"], 1)[:3], {"type": "response.output_item.done", "output_index": 1, "item": cited}],
    )))  # fmt: skip
    assert [event["item"] for event in sent if event["type"] == "response.output_item.done"] == [search, cited]
    [annotated] = [event for event in sent if event["type"] == "response.output_text.annotation.added"]
    assert (annotated["annotation"], annotated["annotation_index"], annotated["item_id"]) == (citation, 0, "msg_1")
    assert sent[-1]["response"]["output"] == [search, cited]


def test_annotations_of_ours_lie_on_what_they_are_about() -> None:
    report = Report((FLAGGED,), None, Assessment(True, FLAGGED, {"PII": 0.1}))
    sent = events_of(relayed(ResponsesStream(NOTED), *WHOLE, note=FLAGGED, report=report))
    assert {event["type"] for event in sent if "weir" in event} == {
        "response.output_item.added",  # of the call, whose name is a text
        "response.output_text.delta",
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.delta",
    }
    response = sent[-1]["response"]
    assert response["weir"]["channels"]["content"]["risk_level"] == "Unsafe"
    parsed = Response.model_validate(response).moderation
    assert parsed is not None
    assert parsed.output.type == "moderation_result"
    assert parsed.output.flagged


def cut_at(adapter: ResponsesStream, events: list[dict[str, Any]], notice: str) -> list[Any]:
    written(adapter, decoded(adapter, *events))
    closing = [
        *adapter.encode_block(block_of(notice), Report()),
        *adapter.encode_usage(Usage(1, 2)),
        *adapter.encode_end(),
    ]
    return events_of(b"".join(encode_event(event) for event in closing))


def test_a_cut_goes_on_in_the_text_under_way() -> None:
    sent = cut_at(ResponsesStream(NOTED), WHOLE[:11], "[cut]")
    kinds = [event["type"].removeprefix("response.") for event in sent]
    assert kinds == ["output_text.delta", "output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert sent[1]["text"] == "one[cut]"
    assert sent[3]["item"]["status"] == "incomplete"
    response = sent[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert response["usage"] is None
    assert response["id"] == "resp_1"
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
    assert response["weir"]["action"] == "block"
    Response.model_validate(response)


@pytest.mark.parametrize("notice", ["[cut]", ""])
def test_a_cut_call_is_never_done_and_leaves_the_output(notice: str) -> None:
    at_delta = next(n for n, event in enumerate(WHOLE) if "arguments.delta" in event["type"])
    sent = cut_at(ResponsesStream(PLAIN), WHOLE[: at_delta + 1], notice)
    kinds = [event["type"].removeprefix("response.") for event in sent]
    assert not [kind for kind in kinds if "function_call" in kind]
    assert kinds[-1] == "incomplete"
    items = [item["type"] for item in sent[-1]["response"]["output"]]
    assert items == ["reasoning", "message"] + (["message"] if notice else [])


def test_a_cut_before_anything_is_a_whole_answer() -> None:
    sent = cut_at(ResponsesStream(PLAIN), [], "No.")
    kinds = [event["type"].removeprefix("response.") for event in sent]
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done", "incomplete",
    ]  # fmt: skip
    assert sent[-1]["response"]["model"] == "asked-model"


def test_a_failure_is_an_error_that_every_client_raises_at() -> None:
    [event] = ResponsesStream(PLAIN).encode_failure(Failure("It broke.", code="guard_down"))
    told = json.loads(event.data)
    assert (event.type, told["type"], told["message"], told["code"]) == ("error", "error", "It broke.", "guard_down")
    assert told["error"]["message"] == "It broke."
    [body] = ResponsesBody(PLAIN).encode_failure(Failure("It broke."))
    assert json.loads(body.data)["error"]["message"] == "It broke."


def test_a_body_is_rebuilt_from_what_was_released() -> None:
    items = [message_item("one"), call_item(1, "f", '{"a":1}')]
    sent = body_sent(relayed(ResponsesBody(PLAIN), json.loads(response_body(*items))))
    assert sent == {**RESPONSE, "status": "completed", "output": items, "usage": RESPONSE_USAGE}
    Response.model_validate(sent)


def test_a_body_tells_its_risks_and_its_cut() -> None:
    adapter = ResponsesBody(NOTED)
    pieces = decoded(adapter, json.loads(response_body(message_item("one"), call_item(1, "f", "{}"))))
    first_text = next(n for n, piece in enumerate(pieces) if isinstance(piece, Delta))
    written(adapter, pieces[: first_text + 1], note=FLAGGED)
    adapter.encode_block(block_of("[cut]"), Report(answer=Assessment(True, FLAGGED, {})))
    assert adapter.encode_usage(Usage(1, 2)) == []
    sent = json.loads(adapter.encode_end()[0].data)
    assert [item["content"][0]["text"] for item in sent["output"]] == ["one[cut]"]
    assert sent["weir"]["spans"][0]["category"] == "Sexual Content"
    assert sent["moderation"]["output"]["flagged"]


# Anything at all, in a stream and in a body.

SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"query": "q"}}
STREAM = response_events(
    reasoning_events(0),
    message_item_events(["one", " two"], 1),
    call_item_events(2, "f", ["{", "}"]),
    [{"type": "response.output_item.done", "output_index": 3, "item": SEARCH}],
)
BODY: dict[str, Any] = json.loads(response_body(*STREAM[-1]["response"]["output"]))
SHAPES = [("stream", STREAM), ("body", BODY)]


def pieces_of(shape: str, value: Any) -> tuple[Any, list[Piece]]:
    adapter: Any = ResponsesStream(PLAIN) if shape == "stream" else ResponsesBody(PLAIN)
    pieces: list[Piece] = []
    events = value if shape == "stream" else [value]
    for event in events if isinstance(events, list) else [events]:
        pieces += adapter.decode(event_of(json.dumps(event)))
    return adapter, pieces


@pytest.mark.parametrize(("shape", "rich"), SHAPES)
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_json_in_any_place_is_read_or_refused(shape: str, rich: Any, data: st.DataObject) -> None:
    value: Any = json.loads(json.dumps(rich))
    path = data.draw(st.sampled_from([path for path in paths_of(rich) if path]))
    at(value, path[:-1])[path[-1]] = data.draw(JSON)
    try:
        adapter, pieces = pieces_of(shape, value)
    except AdapterError:
        return
    written(adapter, map(repaired, pieces))


@pytest.mark.parametrize(("shape", "rich"), SHAPES)
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_what_leaves_is_what_was_judged(shape: str, rich: Any, data: st.DataObject) -> None:
    """A canary anywhere at all: it is a text that the guard reads, or it does not leave."""
    value: Any = json.loads(json.dumps(rich))
    holder = at(
        value, data.draw(st.sampled_from([path for path in paths_of(rich) if isinstance(at(rich, path), dict)]))
    )
    name = data.draw(st.sampled_from([*holder, "x", CANARY]))
    holder[name] = data.draw(
        st.sampled_from([CANARY, [CANARY], {"text": CANARY}, {CANARY: 1}, [{"type": "output_text", "text": CANARY}]])
    )
    try:
        adapter, pieces = pieces_of(shape, value)
    except AdapterError:
        return
    judged = [piece for piece in pieces if isinstance(piece, Delta) and CANARY in piece.text]
    if not judged:
        assert CANARY not in written(adapter, pieces).decode()
        return
    # All but the judged text: had the guard held it back, nothing of it would have left.
    hidden = [piece if piece not in judged else _blanked(piece) for piece in pieces]
    assert CANARY not in written(adapter, hidden).decode()


def _blanked(piece: Piece) -> Piece:
    assert isinstance(piece, Delta)
    return Delta(piece.key, piece.kind, piece.text.replace(CANARY, "..."), piece.source, piece.extra)
