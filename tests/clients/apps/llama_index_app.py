"""llama-index-llms-openai: the OpenAI class, with the name of a model that it knows."""

from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI
from worker import KEY, Seen

PACKAGE = "llama-index-llms-openai"
HELLO = [ChatMessage(role="user", content="hello")]


def chat(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    # docs: llama-index-llms-openai
    model = OpenAI(model="gpt-4o-mini", api_base=f"{url}/v1", api_key=KEY)
    # docs: end
    found: Any = None
    for found in model.stream_chat(HELLO) if stream else [model.chat(HELLO)]:
        seen.keep(found)
        seen.text += (found.delta or "") if stream else (found.message.content or "")
        raw = found.raw
        seen.annotate("`response.raw.weir`", getattr(raw, "weir", None))
        for choice in raw.choices:
            seen.annotate("`response.raw.choices[].weir`", getattr(choice, "weir", None))
            seen.finish = choice.finish_reason or seen.finish
    if found is not None:
        for call in found.message.additional_kwargs.get("tool_calls", ()):
            seen.call(call.function.name, call.function.arguments)


WAYS = {"OpenAI.chat": chat}
