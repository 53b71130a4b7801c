"""The event of a piece of content and nothing else, as nearly all are.

In a module of its own: the reader may be compiled, msgspec's records not.
"""

from typing import Any

import msgspec


# Whatever an event has beside these, it does not fit; and what is None here is null, if it is there. So are fields that
# vLLM, SGLang, DeepSeek and others send in each event. OpenAI's own have an obfuscation.
class PlainDelta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    refusal: None = None
    reasoning_content: None = None
    reasoning: None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None


class PlainChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    delta: PlainDelta
    index: Any = None
    logprobs: None = None
    finish_reason: None = None
    stop_reason: None = None
    matched_stop: None = None
    token_ids: None = None
    content_filter_results: Any = None


class PlainChunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    choices: tuple[PlainChoice]
    object: Any = None
    usage: Any = None
    id: Any = None
    created: Any = None
    model: Any = None
    system_fingerprint: Any = None
    service_tier: Any = None
    provider: Any = None
    obfuscation: Any = None

    @property
    def envelope(self) -> tuple[Any, ...]:
        """The ENVELOPE_FIELDS."""
        return self.id, self.created, self.model, self.system_fingerprint, self.service_tier, self.provider


decode_plain = msgspec.json.Decoder(PlainChunk).decode
