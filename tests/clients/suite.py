"""The clients, and what each is put through: an answer of the upstream, a guard, and settings."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.doors import (
    DOORS,
    block_events,
    call_item,
    call_item_events,
    message_body,
    message_events,
    response_body,
    response_events,
    sse_event,
)
from tests.driver import DONE, WORDS, body, call, chunk
from tests.fakes import UNSAFE, ScriptedGuard, labels, words

TEXT = "".join(WORDS)
NOTICE = "[stopped]"
ARGUMENTS = {"city": "Paris"}


@dataclass(frozen=True)
class Client:
    library: str
    way: str  # what the app calls
    app: str  # the file in apps/ that calls it
    environment: str
    door: str = "chat/completions"
    forms: tuple[bool, ...] = (True, False)  # streamed, whole
    is_agent: bool = False  # it runs the tools and asks again
    has_tools: bool = True

    def __str__(self) -> str:
        return f"{self.library}-{self.way}"


STREAMED = (True,)
CLIENTS = (
    Client("openai-python", "chat.completions", "openai_python", "current"),
    Client("openai-python", "chat.completions.stream", "openai_python", "current", forms=STREAMED),
    Client("openai-python", "get_final_completion", "openai_python", "current", forms=STREAMED),
    Client("openai-python", "completions", "openai_python", "current", "completions", has_tools=False),
    Client("openai-python", "responses", "openai_python", "current", "responses"),
    Client("openai-python", "responses.stream", "openai_python", "current", "responses", STREAMED),
    Client("openai-python 2", "chat.completions", "openai_python", "older"),
    Client("openai-python 2", "responses", "openai_python", "older", "responses"),
    Client("langchain-openai", "ChatOpenAI", "langchain_openai_app", "current"),
    Client("langchain-openai", "ChatOpenAI(use_responses_api=True)", "langchain_openai_app", "current", "responses"),
    Client("litellm", "completion", "litellm_app", "older"),
    Client("litellm", "responses", "litellm_app", "older", "responses"),
    Client("llama-index-llms-openai", "OpenAI.chat", "llama_index_app", "older"),
    Client("pydantic-ai", "OpenAIChatModel", "pydantic_ai_app", "current", is_agent=True),
    Client("pydantic-ai", "OpenAIResponsesModel", "pydantic_ai_app", "current", "responses", is_agent=True),
    Client("openai-agents", "OpenAIResponsesModel", "openai_agents_app", "current", "responses", is_agent=True),
    Client("openai-agents", "OpenAIChatCompletionsModel", "openai_agents_app", "current", is_agent=True),
    Client("anthropic", "messages.create", "anthropic_python", "current", "messages"),
    Client("anthropic", "messages.stream", "anthropic_python", "current", "messages", STREAMED),
    Client("openai-node", "chat.completions", "openai_node", "node"),
    Client("openai-node", "chat.completions.stream", "openai_node", "node", forms=STREAMED),
    Client("openai-node", "responses", "openai_node", "node", "responses"),
    Client("openai-node", "responses.stream", "openai_node", "node", "responses", STREAMED),
    Client("AI SDK", "@ai-sdk/openai: openai()", "ai_sdk", "node", "responses"),
    Client("AI SDK", "@ai-sdk/openai: openai.chat()", "ai_sdk", "node"),
    Client("AI SDK", "@ai-sdk/openai: openai.chat(), textStream", "ai_sdk", "node", forms=STREAMED),
    Client("AI SDK", "@ai-sdk/openai-compatible", "ai_sdk", "node"),
    Client("AI SDK", "@ai-sdk/anthropic", "ai_sdk", "node", "messages"),
    Client("@anthropic-ai/sdk", "messages.create", "anthropic_node", "node", "messages"),
    Client("@anthropic-ai/sdk", "messages.stream", "anthropic_node", "node", "messages", STREAMED),
)


def says_text(door: str, *, stream: bool) -> list[Any]:
    return DOORS[door].answer(WORDS) if stream else [DOORS[door].body(TEXT)]


def calls_a_tool(door: str, *, stream: bool) -> list[Any]:
    return CALLS[door, stream]()


PARTS = ['{"city":', ' "Paris"}']
WHOLE_CALL = {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": "".join(PARTS)}}
TOOL_USE: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
JSON_DELTAS = [{"type": "input_json_delta", "partial_json": part} for part in PARTS]

CALLS: dict[tuple[str, bool], Callable[[], list[Any]]] = {
    ("chat/completions", True): lambda: [
        chunk({"role": "assistant", "content": None}),
        call(0, "get_weather"),
        *(call(0, arguments=part) for part in PARTS),
        chunk({}, "tool_calls"),
        DONE,
    ],
    ("chat/completions", False): lambda: [body({"content": None, "tool_calls": [WHOLE_CALL]}, "tool_calls")],
    ("responses", True): lambda: [*map(sse_event, response_events(call_item_events(0, "get_weather", PARTS)))],
    ("responses", False): lambda: [response_body(call_item(0, "get_weather", "".join(PARTS)))],
    ("messages", True): lambda: message_events(block_events(0, TOOL_USE, *JSON_DELTAS), stop="tool_use"),
    ("messages", False): lambda: [message_body(TOOL_USE | {"input": ARGUMENTS}, stop_reason="tool_use")],
}


@dataclass(frozen=True)
class Case:
    guard: Callable[[], ScriptedGuard]
    settings: dict[str, Any] = field(default_factory=dict)
    tools: bool = False
    hidden: str = ""  # what may not reach the client anywhere
    column: str = ""  # of the page, where this has one
    pause: float = 0.005  # seconds between the upstream's chunks
    takes_long: bool = False  # clients wait before they ask again


CASES = {
    "safe": Case(ScriptedGuard),
    "cut": Case(lambda: ScriptedGuard(labels("SSUU")), hidden="three", column="answer flagged at its third word"),
    "annotated": Case(
        lambda: ScriptedGuard(labels("SSUU")), {"policy__on_flag": "annotate"}, column='`on_flag = "annotate"`'
    ),
    "blocked": Case(
        lambda: ScriptedGuard(prompt_level=UNSAFE),
        {"policy__prompt_check": "before"},
        hidden="one two",
        column="prompt flagged",
    ),
    "tool": Case(ScriptedGuard, tools=True),
    "cut tool": Case(lambda: ScriptedGuard(words("Paris")), tools=True, hidden="Paris", column="tool call flagged"),
    "failure": Case(lambda: ScriptedGuard(fails_after=10), hidden="nine", column="guard fails half way", pause=0.03),
    "down": Case(
        lambda: ScriptedGuard(prompt_delay=0.1, prompt_fault="raise"),
        hidden="one two",
        column="guard is down",
        takes_long=True,
    ),
}


@dataclass
class Seen:
    """What the app's developer saw (see apps/worker.py), and how often the upstream was asked for it."""

    text: str
    finish: str | None
    calls: list[list[str]]
    annotation: str | None
    error: dict[str, Any] | None
    dump: str
    version: str
    asked: int = 0

    @property
    def told(self) -> str:
        """All that the client gave, for looking through."""
        return f"{self.dump}{self.text}{json.dumps(self.calls)}{self.error}"
