"""openai-python: chat, completions, responses, and its stream helpers."""

from typing import Any

from openai import OpenAI
from worker import KEY, Seen

PACKAGE = "openai"
HELLO: Any = [{"role": "user", "content": "hello"}]


# docs: openai-python
def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=KEY)


# docs: end


def chat(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    made = client(url).chat.completions.create(model="m", messages=HELLO, stream=stream)
    for event in made if stream else [made]:
        seen.keep(event)
        seen.annotate("`chunk.weir`", getattr(event, "weir", None))
        for choice in event.choices:
            seen.annotate("`choice.weir`", getattr(choice, "weir", None))
            seen.finish = choice.finish_reason or seen.finish
            message = choice.delta if stream else choice.message
            seen.text += message.content or ""
            for call in message.tool_calls or ():
                add_call(seen, call)


def add_call(seen: Seen, call: Any) -> None:
    """A whole call, or one more part of the call before."""
    if call.function.name or not seen.calls:
        seen.call(call.function.name, "")
    seen.calls[-1][1] += call.function.arguments or ""


def chat_helper(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    with client(url).chat.completions.stream(model="m", messages=HELLO) as events:
        for event in events:
            seen.keep(event)
            if event.type == "chunk":
                seen.annotate("`event.chunk.weir`", getattr(event.chunk, "weir", None))
                seen.finish = event.chunk.choices[0].finish_reason or seen.finish
            if event.type == "content.delta":
                seen.text += event.delta
        for call in events.current_completion_snapshot.choices[0].message.tool_calls or ():
            seen.call(call.function.name, call.function.arguments)


def parse(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    with client(url).chat.completions.stream(model="m", messages=HELLO) as events:
        made = events.get_final_completion()
    seen.keep(made)
    [choice] = made.choices
    seen.annotate("`choice.weir`", getattr(choice, "weir", None))
    seen.text, seen.finish = choice.message.content or "", choice.finish_reason
    for call in choice.message.tool_calls or ():
        seen.call(call.function.name, call.function.arguments)


def completions(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    made = client(url).completions.create(model="m", prompt="hello", stream=stream)
    for event in made if stream else [made]:
        seen.keep(event)
        seen.annotate("`chunk.weir`", getattr(event, "weir", None))
        for choice in event.choices:
            seen.annotate("`choice.weir`", getattr(choice, "weir", None))
            seen.text += choice.text
            seen.finish = choice.finish_reason or seen.finish


def responses(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    made = client(url).responses.create(model="m", input="hello", stream=stream)
    if not stream:
        whole_response(seen, made)
        return
    for event in made:
        response_event(seen, event)


def responses_helper(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    with client(url).responses.stream(model="m", input="hello") as events:
        for event in events:
            response_event(seen, event)
        whole_response(seen, events.get_final_response())


def response_event(seen: Seen, event: Any) -> None:
    seen.keep(event)
    seen.annotate("`event.weir`", getattr(event, "weir", None))
    if event.type == "response.output_text.delta":
        seen.text += event.delta
    elif event.type == "response.output_item.done" and event.item.type == "function_call":
        seen.call(event.item.name, event.item.arguments)
    elif event.type in ("response.completed", "response.incomplete"):
        seen.finish = finish_of(event.response)


def whole_response(seen: Seen, made: Any) -> None:
    seen.keep(made)
    seen.annotate("`response.weir`", getattr(made, "weir", None))
    seen.text, seen.finish = made.output_text, finish_of(made)
    seen.calls = [[item.name, item.arguments] for item in made.output if item.type == "function_call"]


def finish_of(made: Any) -> str:
    return made.incomplete_details.reason if made.incomplete_details else made.status


WAYS = {
    "chat.completions": chat,
    "chat.completions.stream": chat_helper,
    "get_final_completion": parse,
    "completions": completions,
    "responses": responses,
    "responses.stream": responses_helper,
}
