"""The dialects: one response of an LLM API <-> pieces. The standard library only.

base.py                  Event, Key, the pieces, and what an adapter does; errors.py: what it cannot read
openai_chat.py           /v1/chat/completions, streamed
openai_chat_body.py      the same, as one body
openai_chat_reader.py    one event or body -> pieces; openai_chat_plain.py, openai_chat_repeats.py: the common event
openai_chat_fields.py    the fields of a message in which text travels
openai_chat_calls.py     which tool call a fragment belongs to
openai_chat_logprobs.py  logprobs that repeat a text
openai_completions.py    /v1/completions: chat with one field
openai_responses.py      /v1/responses, streamed and as one body; ..._reader.py: events -> pieces;
                         ..._items.py: where text lies in it; ..._head.py: the fields around the output
anthropic_messages.py    /v1/messages, streamed; ..._body.py: as one body; ..._reader.py: events -> pieces
translation.py           an upstream of another dialect at the door of chat; anthropic_chat.py, gemini_chat.py: which
structures.py            JSON values that are judged whole
notations.py             verdicts as clients read them
azure_notation.py        the same as Azure writes its own
metadata.py              names and numbers that pass unjudged, checked for shape
strict_json.py           JSON objects, no NaN, no quotes in errors
"""

from collections.abc import Mapping
from typing import NamedTuple

from adapters.anthropic_chat import AnthropicChatBody, AnthropicChatStream
from adapters.anthropic_messages import MessagesStream
from adapters.anthropic_messages_body import MessagesBody
from adapters.base import AdapterFactory
from adapters.gemini_chat import GeminiChatBody, GeminiChatStream
from adapters.openai_chat import ChatStream
from adapters.openai_chat_body import ChatBody
from adapters.openai_completions import CompletionBody, CompletionStream
from adapters.openai_responses import ResponsesBody, ResponsesStream


class Endpoint(NamedTuple):
    """Where an endpoint lies upstream, and the two shapes of its answer."""

    upstream_path: str
    stream: AdapterFactory
    body: AdapterFactory
    key_header: str = "authorization"  # where the upstream wants an operator's key


# By the path at which clients call it: what an upstream answers that speaks the same dialect.
ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": Endpoint("/chat/completions", ChatStream, ChatBody),
    "/v1/completions": Endpoint("/completions", CompletionStream, CompletionBody),
    "/v1/responses": Endpoint("/responses", ResponsesStream, ResponsesBody),
    "/v1/messages": Endpoint("/messages", MessagesStream, MessagesBody, key_header="x-api-key"),
}

# What upstreams of other dialects answer there: (the upstream's dialect, the client's path).
TRANSLATED: Mapping[tuple[str, str], Endpoint] = {
    ("anthropic", "/v1/chat/completions"): Endpoint("/messages", AnthropicChatStream, AnthropicChatBody, "x-api-key"),
    # The path goes on with the model and the method.
    ("gemini", "/v1/chat/completions"): Endpoint("/models", GeminiChatStream, GeminiChatBody, "x-goog-api-key"),
}
