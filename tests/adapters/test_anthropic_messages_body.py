"""Messages as one body."""

import json
from typing import Any

from anthropic.types import Message

from adapters.anthropic_messages_body import MessagesBody
from adapters.base import Assessment, Block, Failure, Notations, Note, Options, Report, Usage
from tests.adapters.relay import body_sent, decoded, relayed, written
from tests.adapters.test_anthropic_messages import BODY, FLAGGED, NOTED, PLAIN


def validated(message: dict[str, Any]) -> None:
    """By the client's own types, but for the block whose content is made up."""
    known = [block for block in message["content"] if block["type"] != "web_search_tool_result"]
    texts = [block | {"citations": None} if block["type"] == "text" else block for block in known]
    Message.model_validate(message | {"content": texts})


def sent_after_cut(adapter: MessagesBody, *, pieces: int) -> dict[str, Any]:
    written(adapter, decoded(adapter, BODY)[:pieces])
    adapter.encode_block(Block(0, FLAGGED, 2, "Stopped."), Report())
    [event] = adapter.encode_end()
    found: dict[str, Any] = json.loads(event.data)
    validated(found)
    return found


def test_a_body_is_rebuilt_from_what_was_released() -> None:
    sent = body_sent(relayed(MessagesBody(PLAIN), BODY))
    assert sent["content"] == BODY["content"][:4]
    assert (sent["stop_reason"], sent["usage"]) == ("end_turn", BODY["usage"])
    validated(sent)


def test_a_cut_body_keeps_texts_and_no_call() -> None:
    everything = len(decoded(MessagesBody(PLAIN), BODY))
    for pieces in range(everything - 2):
        found = sent_after_cut(MessagesBody(PLAIN), pieces=pieces)
        assert found["stop_reason"] == "refusal"
        assert not [block for block in found["content"] if block["type"] == "tool_use"]
        assert "Stopped." in "".join(block.get("text", "") for block in found["content"])


def test_a_body_tells_its_risks() -> None:
    adapter = MessagesBody(NOTED)
    report = Report((FLAGGED,), None, Assessment(True, FLAGGED, {}))
    sent = body_sent(relayed(adapter, BODY, note=FLAGGED, report=report))
    assert sent["weir"]["channels"]["content"]["risk_level"] == "Unsafe"
    assert {span["category"] for span in sent["weir"]["spans"]} == {"Sexual Content"}
    assert sent["moderation"]["output"]["type"] == "moderation_results"
    safe = Note("content", 0, 1, "Safe", None, 0.9)
    assert "spans" not in body_sent(relayed(MessagesBody(NOTED), BODY, note=safe))["weir"]


def test_counts_stay_the_upstreams_where_it_sent_any() -> None:
    adapter = MessagesBody(Options("m", notations=Notations(weir=False)))
    assert sent_after_cut(adapter, pieces=3)["usage"] == BODY["usage"]
    adapter.encode_usage(Usage(1, 2))
    assert json.loads(adapter.encode_failure(Failure("It broke."))[0].data)["error"]["message"] == "It broke."
