"""Weir: a streaming safety proxy for the OpenAI API.

cli            `weir serve | demo | moderate | doctor`
config         settings, read once, refused with a sentence
app            routes, start and stop
handlers       one coroutine an endpoint
upstream       talk to the LLM API
pump           the one loop that awaits
stream         one moderated response, without I/O
sse            bytes <-> events
retokenizer    text -> Qwen3 tokens that later text cannot change
conversation   a request's messages -> the guard's prompt tokens
gate           hold pieces in order, release what was cleared
policy         risk -> verdict, as a table
risk           the words that guard and policy share
errors         who is at fault, and the JSON body for it
vocabulary/    the Qwen3 vocabulary
guard/         the engine that runs Qwen3Guard-Stream
"""

__version__ = "0.1.0"
