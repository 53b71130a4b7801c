"""langchain-openai: ChatOpenAI over chat completions, and over Responses."""

from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from worker import KEY, Seen

PACKAGE = "langchain-openai"


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def chat(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    # docs: langchain-openai
    model = ChatOpenAI(base_url=f"{url}/v1", api_key=KEY, model="m")
    # docs: end
    ask(model, stream=stream, tools=tools, seen=seen)


def responses(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    model = ChatOpenAI(base_url=f"{url}/v1", api_key=KEY, model="m", use_responses_api=True)
    ask(model, stream=stream, tools=tools, seen=seen)


def ask(model: ChatOpenAI, *, stream: bool, tools: bool, seen: Seen) -> None:
    bound: Any = model.bind_tools([get_weather]) if tools else model
    if not stream:
        whole = bound.invoke("hello")
        seen.text = whole.text
    else:
        whole = AIMessageChunk("")
        for part in bound.stream("hello"):
            seen.keep(part)
            seen.text += part.text
            whole = whole + part
    seen.keep(whole)
    metadata = whole.response_metadata
    details = metadata.get("incomplete_details") or {}
    seen.finish = metadata.get("finish_reason") or details.get("reason") or metadata.get("status")
    for call in whole.tool_calls:
        seen.call(call["name"], call["args"])
    seen.annotate("`message.response_metadata`", metadata.get("weir"))


WAYS = {"ChatOpenAI": chat, "ChatOpenAI(use_responses_api=True)": responses}
