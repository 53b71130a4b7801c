"""An answer of Gemini's generateContent and streamGenerateContent, told in chat.

| Gemini                                  | chat                                                     |
|-----------------------------------------|----------------------------------------------------------|
| text of a part; with `thought: true`    | content; reasoning_content                               |
| functionCall                            | tool_calls: id (one of ours where none), name, arguments |
| thoughtSignature of a functionCall      | extra_content.google.thought_signature of the call       |
| usageMetadata                           | usage; thoughts are a part of the completion             |
| finishReason, promptFeedback            | finish_reason, and native_finish_reason as it was        |
| any other part or field                 | left out and counted                                     |

An event and a whole body have the same form. A stream has no last word: it is complete where every
candidate has said why it ended. Format: https://ai.google.dev/api/generate-content
"""

from collections.abc import Iterator, Mapping
from typing import Any

from adapters.base import Event, Options
from adapters.errors import AdapterError, UpstreamReportedError
from adapters.metadata import index_of, is_count, leftovers
from adapters.strict_json import read_object
from adapters.translation import Chunk, TranslatedBody, TranslatedStream

FINISH_REASONS: Mapping[str, str] = {"STOP": "stop", "MAX_TOKENS": "length"}
# The model failed to say what it meant to: no end that a client may take for one.
FAILED = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
    }
)
# The provider stopped it. So does any reason that we do not know: none of them is a normal end.
STOPPED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "OTHER",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_OTHER",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
        "JAILBREAK",
    }
)
UNSPECIFIED = frozenset({"FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})

RESPONSE_FIELDS = frozenset(
    {"candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "createTime", "modelStatus"}
)
CANDIDATE_FIELDS = frozenset({"content", "finishReason", "index", "safetyRatings", "avgLogprobs", "tokenCount"})
CONTENT_FIELDS = frozenset({"parts", "role"})
TEXT_FIELDS = frozenset({"text", "thought", "thoughtSignature"})
CALL_FIELDS = frozenset({"functionCall", "thoughtSignature"})
FUNCTION_FIELDS = frozenset({"id", "name", "args"})
ROLE: Mapping[str, Any] = {"role": "assistant", "content": None, "refusal": None}


class GeminiTranslator:
    """The events of one response."""

    is_over = False  # only the end of the connection says so

    def __init__(self, options: Options) -> None:
        self._choices = options.choices
        self._calls: dict[int, int] = {}  # by candidate: its calls so far
        self._begun: set[int] = set()  # candidates whose role is told
        self._ended: set[int] = set()
        self.dropped = 0

    def read(self, event: Event) -> Iterator[Chunk]:
        said = read_object(event.data)
        if event.type == "error" or said.get("error"):
            raise UpstreamReportedError("the upstream reports an error")
        self.dropped += leftovers(said, RESPONSE_FIELDS)
        head = {"id": said.get("responseId"), "model": said.get("modelVersion")}
        choices = [*self._candidates(said), *self._blocked(said)]
        counted = self._usage(said.get("usageMetadata"))
        # The counts are sums: beside the event's last words, for they are told only once all have ended.
        for position, choice in enumerate(choices, start=1):
            yield {**head, "choices": [choice], **(counted if position == len(choices) else {})}
        if counted and not choices:
            yield {**head, "choices": [], **counted}

    def read_body(self, event: Event) -> Iterator[Chunk]:
        return self.read(event)

    def _candidates(self, said: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for candidate in _objects(said, "candidates"):
            index = index_of(candidate.get("index"), 0)
            self.dropped += leftovers(candidate, CANDIDATE_FIELDS)
            yield from self._role(index)
            for part in self._parts(candidate):
                yield {"index": index, "delta": self._delta(index, part)}
            if reason := candidate.get("finishReason"):
                yield self._finish(index, reason)

    def _blocked(self, said: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """A prompt that the provider refused has no candidates: each of them ends at once."""
        feedback = said.get("promptFeedback") or {}
        if not isinstance(feedback, dict):
            raise AdapterError("promptFeedback is not an object")
        self.dropped += leftovers(feedback, ("blockReason", "safetyRatings"))
        if reason := feedback.get("blockReason"):
            for index in range(self._choices):
                yield from self._role(index)
                yield self._finish(index, reason, is_blocked=True)

    def _role(self, index: int) -> Iterator[dict[str, Any]]:
        if index not in self._begun:
            self._begun.add(index)
            yield {"index": index, "delta": dict(ROLE)}

    def _parts(self, candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
        content = candidate.get("content") or {}
        if not isinstance(content, dict):
            raise AdapterError("the content of a candidate is not an object")
        self.dropped += leftovers(content, CONTENT_FIELDS)
        return _objects(content, "parts")

    def _delta(self, index: int, part: Mapping[str, Any]) -> dict[str, Any]:
        if index in self._ended and (part.get("text") or part.get("functionCall")):
            # Models of old said STOP in every event: an answer of which the rest is missing is no answer.
            raise AdapterError("a candidate goes on after its end")
        if part.get("functionCall") is not None:
            self.dropped += leftovers(part, CALL_FIELDS)
            return {"tool_calls": [self._call(index, part)]}
        self.dropped += leftovers(part, TEXT_FIELDS)
        return {"reasoning_content" if part.get("thought") else "content": part.get("text")}

    def _call(self, candidate: int, part: Mapping[str, Any]) -> dict[str, Any]:
        """Calls come whole, and one after the other."""
        function = part["functionCall"]
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise AdapterError("a function call has no name")
        if not isinstance(arguments := function.get("args") or {}, dict):
            raise AdapterError("the arguments of a function call are not an object")
        self.dropped += leftovers(function, FUNCTION_FIELDS)
        index = self._calls.get(candidate, 0)
        self._calls[candidate] = index + 1
        signature = part.get("thoughtSignature")
        return {
            "index": index,
            "id": function.get("id"),
            "type": "function",
            "function": {"name": function["name"], "arguments": arguments},
            "extra_content": {"google": {"thought_signature": signature}} if signature else None,
        }

    def _finish(self, index: int, reason: Any, *, is_blocked: bool = False) -> dict[str, Any]:
        if not isinstance(reason, str):
            raise AdapterError("a finish reason is not a string")
        if reason in FAILED:
            raise UpstreamReportedError("the upstream reports that the model failed")
        if reason in UNSPECIFIED or (reason not in STOPPED and reason not in FINISH_REASONS):
            self.dropped += 1
            native = {}
        else:
            native = {"native_finish_reason": reason}
        finish = "content_filter" if is_blocked else FINISH_REASONS.get(reason, "content_filter")
        if finish == "stop" and self._calls.get(index):
            finish = "tool_calls"
        self._ended.add(index)
        return {"index": index, "delta": {}, "finish_reason": finish, **native}

    def _usage(self, counts: Any) -> dict[str, Any]:
        if not isinstance(counts, dict):
            self.dropped += bool(counts)
            return {}
        prompt, thought, said = (
            _number(counts.get(name)) for name in ("promptTokenCount", "thoughtsTokenCount", "candidatesTokenCount")
        )
        prompt += _number(counts.get("toolUsePromptTokenCount"))
        usage: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": thought + said,
            "total_tokens": prompt + thought + said,
        }
        if cached := _number(counts.get("cachedContentTokenCount")):
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        if thought:
            usage["completion_tokens_details"] = {"reasoning_tokens": thought}
        return {"usage": usage}


def _objects(table: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    items = table.get(name) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise AdapterError(f"{name} is not a list of objects")
    return items


def _number(value: Any) -> int:
    return value if is_count(value) else 0


class GeminiChatStream(TranslatedStream):
    translator = GeminiTranslator


class GeminiChatBody(TranslatedBody):
    translator = GeminiTranslator
