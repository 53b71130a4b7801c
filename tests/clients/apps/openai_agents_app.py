"""openai-agents: Responses by default, chat completions on request."""

import asyncio

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from worker import KEY, Seen

PACKAGE = "openai-agents"
set_tracing_disabled(True)


def responses(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    # docs: openai-agents
    api = AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY)
    agent = Agent(name="a", model=OpenAIResponsesModel("m", api))
    # docs: end
    asyncio.run(ask(agent, stream=stream, seen=seen))


def chat(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    api = AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY)
    asyncio.run(ask(Agent(name="a", model=OpenAIChatCompletionsModel("m", api)), stream=stream, seen=seen))


async def ask(agent: Agent, *, stream: bool, seen: Seen) -> None:
    @function_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        seen.call("get_weather", {"city": city})
        return "sunny"

    agent.tools = [get_weather]
    if not stream:
        made = await Runner.run(agent, "hello")
        seen.text = str(made.final_output)
    else:
        made = Runner.run_streamed(agent, "hello")
        async for event in made.stream_events():
            seen.keep(event)
            if event.type == "raw_response_event":
                seen.annotate("`event.data.weir`", getattr(event.data, "weir", None))
                if event.data.type == "response.output_text.delta":
                    seen.text += event.data.delta
                if made_response := getattr(event.data, "response", None):
                    details = made_response.incomplete_details
                    seen.finish = details.reason if details else made_response.status
    seen.keep(made.raw_responses)
    seen.keep(made.final_output)


WAYS = {"OpenAIResponsesModel": responses, "OpenAIChatCompletionsModel": chat}
