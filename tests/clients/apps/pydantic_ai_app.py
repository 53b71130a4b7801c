"""pydantic-ai: an agent on OpenAIChatModel and on OpenAIResponsesModel."""

import asyncio
from typing import Any

from pydantic_ai import Agent, capture_run_messages
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from worker import KEY, Seen

PACKAGE = "pydantic-ai-slim"


def chat(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    # docs: pydantic-ai
    model = OpenAIChatModel("m", provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY))
    agent = Agent(model)
    # docs: end
    asyncio.run(ask(agent, stream=stream, seen=seen))


def responses(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    agent = Agent(OpenAIResponsesModel("m", provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY)))
    asyncio.run(ask(agent, stream=stream, seen=seen))


async def ask(agent: Agent[Any, Any], *, stream: bool, seen: Seen) -> None:
    @agent.tool_plain
    def get_weather(city: str) -> str:
        seen.call("get_weather", {"city": city})
        return "sunny"

    with capture_run_messages() as messages:
        try:
            if not stream:
                seen.text = (await agent.run("hello")).output
                return
            async with agent.run_stream("hello") as run:
                async for part in run.stream_text(delta=True):
                    seen.text += part
        finally:
            seen.keep(messages)
            for message in messages:
                seen.finish = getattr(message, "finish_reason", None) or seen.finish
                seen.annotate(
                    "`response.provider_details`", (getattr(message, "provider_details", 0) or {}).get("weir")
                )


WAYS = {"OpenAIChatModel": chat, "OpenAIResponsesModel": responses}
