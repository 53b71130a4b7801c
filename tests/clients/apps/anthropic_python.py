"""anthropic: messages, and its stream helper."""

from typing import Any

from anthropic import Anthropic
from worker import KEY, Seen

PACKAGE = "anthropic"
ASK: Any = {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "hello"}]}


# docs: anthropic
def client(url: str) -> Anthropic:
    return Anthropic(base_url=url, api_key=KEY)


# docs: end


def messages(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    made = client(url).messages.create(**ASK, stream=stream)
    if not stream:
        whole(seen, made)
        return
    for event in made:
        seen.keep(event)
        seen.annotate("`event.weir`", getattr(event, "weir", None))
        if event.type == "content_block_start" and event.content_block.type == "tool_use":
            seen.call(event.content_block.name, "")
        elif event.type == "content_block_delta":
            seen.text += getattr(event.delta, "text", "")
            if event.delta.type == "input_json_delta":
                seen.calls[-1][1] += event.delta.partial_json
        elif event.type == "message_delta":
            seen.finish = event.delta.stop_reason


def helper(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    with client(url).messages.stream(**ASK) as made:
        for text in made.text_stream:
            seen.text += text
        seen.text = ""  # once more, of the whole
        whole(seen, made.get_final_message())


def whole(seen: Seen, message: Any) -> None:
    seen.keep(message)
    seen.annotate("`message.weir`", getattr(message, "weir", None))
    seen.finish = message.stop_reason
    for block in message.content:
        if block.type == "text":
            seen.text += block.text
        elif block.type == "tool_use":
            seen.call(block.name, block.input)


WAYS = {"messages.create": messages, "messages.stream": helper}
