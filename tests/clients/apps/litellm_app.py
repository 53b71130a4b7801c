"""litellm as a client: completion(), and responses()."""

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would wait for a network that is not there

import litellm
from worker import KEY, Seen

PACKAGE = "litellm"
HELLO = [{"role": "user", "content": "hello"}]
# With a model that it does not know it makes the stream up from a whole answer.
MODEL = "openai/gpt-4o-mini"
litellm.suppress_debug_info = True


def completion(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    # docs: litellm
    made = litellm.completion("openai/m", HELLO, api_base=f"{url}/v1", api_key=KEY, stream=stream)
    # docs: end
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


def responses(url: str, *, stream: bool, tools: bool, seen: Seen) -> None:
    made: Any = litellm.responses("hello", MODEL, api_base=f"{url}/v1", api_key=KEY, stream=stream)
    for event in made if stream else []:
        seen.keep(event)
        seen.annotate("`event.weir`", getattr(event, "weir", None))
        if event.type == "response.output_text.delta":
            seen.text += event.delta
        made = getattr(event, "response", made)
    seen.keep(made)
    for item in getattr(made, "output", ()):
        if item.type == "function_call":
            seen.call(item.name, item.arguments)
        elif not stream:
            seen.text += "".join(part.text for part in item.content)
    seen.annotate("`response.weir`", getattr(made, "weir", None))
    details = getattr(made, "incomplete_details", None)
    seen.finish = details.reason if details else getattr(made, "status", None)


WAYS = {"completion": completion, "responses": responses}
