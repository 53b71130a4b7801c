"""A conversation judged as the proxy would judge it: every token of the answer, and what a client would have got.

The tokens come from a run in which nothing is cut, so that the page can show what lies behind a cut; what the
client gets comes from a second run through the stream and the policy as they serve.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from adapters.base import Assessment, Block, Event, Notations, Options, Report
from adapters.openai_chat import ChatStream
from proxy.chat_request import read_chat_request
from proxy.collected import Collected
from proxy.drive import Drive
from proxy.framing import EventFraming
from proxy.guard.protocol import Guard
from proxy.moderate import Moderation, as_dict, moderate
from proxy.policies import Chosen, policy_of
from proxy.policy import Mode, Part
from proxy.policy_settings import PolicySettings
from proxy.prompts import assess_prompt, is_blocked, judge_prompt, render_prompts
from proxy.request_body import BadRequest
from proxy.request_fields import ModeratedRequest, Terms
from proxy.risk import RISK_LEVELS, Risk
from proxy.server_settings import ServerSettings
from proxy.settings import GuardSettings, UpstreamSettings
from proxy.sse import EventDecoder
from proxy.stream import Expected, ModeratedStream

# A request: what the guard works on for a moment, at most, beside those who are served.
MAX_BODY_BYTES = 32 << 10
# The answer is played in pieces like a model's tokens; a long one in larger ones.
PIECE_CHARACTERS, MAX_PIECES = 4, 400
MAX_EVENT_BYTES = 1 << 20
ROLES = ("system", "developer", "user", "assistant")
FIELDS = ("messages", "policy", "mode")
TEXTS = ("content", "reasoning_content")
# Whose guard streams these are: nobody else's prompts are shared with them.
OWNER = "console"


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation; its last message, if an assistant's, is the answer."""

    messages: list[dict[str, Any]]
    chosen: Chosen

    @property
    def answer(self) -> dict[str, Any] | None:
        return self.messages[-1] if self.messages[-1]["role"] == "assistant" else None

    @property
    def has_prompt(self) -> bool:
        return any(message["role"] == "user" for message in self.messages)

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """What stands before the answer. An answer on its own stands behind a question without words."""
        before = self.messages[:-1] if self.answer is not None else self.messages
        return before if self.has_prompt else [*before, {"role": "user", "content": ""}]


def read_asked(body: Mapping[str, Any], policies: Sequence[Chosen], limits: ServerSettings) -> Asked:
    """`policy` is a name, `mode` loose or strict in place of the policy's own. Raises BadRequest."""
    if unknown := body.keys() - set(FIELDS):
        _refuse("unknown_parameter", f"Unknown fields: {len(unknown)}; there are {', '.join(FIELDS)}.")
    messages = read_chat_request({"model": "-", "messages": body.get("messages")}, Terms(limits)).messages
    for number, message in enumerate(messages):
        if message["role"] not in ROLES or not message.keys() <= {"role", *TEXTS}:
            _refuse("invalid_value", f"messages[{number}]: a role of {', '.join(ROLES)}, and {' and '.join(TEXTS)}.")
        if not all(isinstance(message.get(name, ""), str) for name in TEXTS):
            _refuse("invalid_value", f"messages[{number}]: only plain text can be judged here.")
    if [message["role"] for message in messages[-2:]] == ["assistant", "assistant"]:
        _refuse("invalid_value", "messages: one answer at the end, not several.")
    name, mode = body.get("policy"), body.get("mode")
    chosen = next((one for one in policies if one.settings.name == name), None if name is not None else policies[0])
    if chosen is None:
        _refuse("unknown_policy", "There is no policy of that name.")
    if mode is not None and mode not in list(Mode):
        _refuse("invalid_value", f"mode: one of {', '.join(Mode)}.")
    return Asked(messages, chosen if mode is None else in_mode(chosen, mode))


def _refuse(code: str, message: str) -> NoReturn:
    raise BadRequest(400, message, code=code)


def in_mode(chosen: Chosen, mode: str) -> Chosen:
    """The same policy, all parts of it in that mode."""
    channels = {part: one.model_copy(update={"mode": mode}) for part, one in chosen.settings.channels.items()}
    settings = chosen.settings.model_copy(update={"mode": mode, "channels": channels})
    return replace(chosen, settings=settings, policy=policy_of(settings))


async def judge(asked: Asked, guard: Guard, settings: GuardSettings) -> dict[str, Any]:
    """What the page shows. Raises BadConversation, ApiError, GuardError."""
    chosen = asked.chosen
    answer = [asked.answer] if asked.answer is not None else []
    moderation = await moderate([*asked.prompt, *answer], guard, chosen.policy, folds=settings.folded_view)
    found = as_dict(moderation) | {"policy": policy_dict(chosen)}
    if not asked.has_prompt:
        found["prompt"] = None
        found["flagged"] = any(text.flagged_at is not None for text in moderation.texts)
    _add_levels(found["texts"], moderation)
    return found | {"client": await _received(asked, moderation.prompt, guard, settings)}


def policy_dict(chosen: Chosen) -> dict[str, Any]:
    one: PolicySettings = chosen.settings
    names = ("name", "mode", "on_flag", "release", "window", "debounce", "debounce_rule")
    return {name: getattr(one, name) for name in names}


def _add_levels(texts: Sequence[dict[str, Any]], moderation: Moderation) -> None:
    """To each token the probabilities that a curve is drawn of."""
    for text, judged in zip(texts, moderation.texts, strict=True):
        text["length"] = len(judged.text)
        for token, span in zip(text["tokens"], judged.tokens, strict=True):
            for level, probability in zip(RISK_LEVELS, span.risk.levels, strict=True):
                token[level.lower()] = round(probability, 4)


async def _received(asked: Asked, risk: Risk, guard: Guard, settings: GuardSettings) -> dict[str, Any] | None:
    """What a client of a streamed request gets; None where nothing was said that could reach it."""
    policy = asked.chosen.policy
    prompt_policy = policy.of(Part.PROMPT)
    if asked.has_prompt and is_blocked(risk, prompt_policy):
        return _blocked(asked.chosen, assess_prompt(risk, prompt_policy))
    if asked.answer is None:
        return None
    request = ModeratedRequest("-", asked.prompt, {}, stream=True)
    [prompt] = await render_prompts(request, guard, allow_unscanned=False, folds=settings.folded_view)
    stream = ModeratedStream(
        EventFraming(MAX_EVENT_BYTES),
        ChatStream(Options("-", notations=Notations())),
        policy,
        Expected(notice=asked.chosen.settings.notice, folded_view=settings.folded_view),
    )
    client = Collected()
    async with AsyncExitStack() as stack:
        classifier, _ = await judge_prompt(prompt, guard, settings, stack, OWNER, prompt_policy)
        source, limits = _Played(asked.answer), UpstreamSettings()
        await Drive(stream, source, classifier, client, limits, limits.idle_seconds, fails_open=False).run()
    read_back = _read_back(b"".join(client.chunks))
    delivered = {key.channel: stream.delivered(key) for key in stream.channels}
    return read_back | {
        "status": 200,
        "outcome": stream.outcome.value,
        "error": stream.error,
        "delivered": delivered,  # characters of each channel's own text, without a notice
    }


class _Played:
    """A `drive.Source`."""

    def __init__(self, answer: Mapping[str, str]) -> None:
        self._chunks = _chunks(answer)

    def take(self) -> bytes:
        return next(self._chunks, b"")

    def listen(self, more: Callable[[], None] | None) -> None:
        """All of it is there."""


def _chunks(answer: Mapping[str, str]) -> Iterator[bytes]:
    """The answer as an upstream streams it."""
    framing = EventFraming(MAX_EVENT_BYTES)

    def event(delta: Mapping[str, str], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        body = {"id": "console", "object": "chat.completion.chunk", "created": 0, "model": "-", "choices": [choice]}
        return framing.encode(Event(json.dumps(body)))

    for name in reversed(TEXTS):  # a model thinks first
        text = answer.get(name, "")
        size = max(PIECE_CHARACTERS, -(-len(text) // MAX_PIECES))
        for start in range(0, len(text), size):
            yield event({name: text[start : start + size]}, None)
    yield event({}, "stop")
    yield framing.encode(Event("[DONE]"))


def _blocked(chosen: Chosen, prompt: Assessment) -> dict[str, Any]:
    """A blocked prompt, as `policy.prompt_block` answers it."""
    if chosen.settings.prompt_block == "error":
        notice = chosen.settings.prompt_notice or "The request was stopped by a safety policy."
        return {"status": 400, "outcome": "refused", "error": "content_filter", "message": notice, "delivered": {}}
    assert prompt.worst is not None  # it is flagged
    block = Block(0, prompt.worst, 1, chosen.settings.prompt_notice)
    adapter, framing = ChatStream(Options("-")), EventFraming(MAX_EVENT_BYTES)
    events = [*adapter.encode_block(block, Report((), prompt, None)), *adapter.encode_end()]
    read_back = _read_back(b"".join(map(framing.encode, events)))
    return read_back | {"status": 200, "outcome": "cut", "error": None, "delivered": {}}


def _read_back(sent: bytes) -> dict[str, Any]:
    """The texts of a stream of ours, as any client puts them together, and how it ended."""
    found: dict[str, Any] = {**dict.fromkeys(TEXTS, ""), "finish_reason": None, "bytes": len(sent)}
    for event in EventDecoder().feed(sent):
        if event.data == "[DONE]":
            continue
        for choice in json.loads(event.data).get("choices", ()):
            for name in TEXTS:
                found[name] += choice.get("delta", {}).get(name) or ""
            found["finish_reason"] = choice.get("finish_reason") or found["finish_reason"]
    return found
