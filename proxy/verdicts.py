"""The guard's verdict on what is complete: a conversation, or a text on its own. Nothing is sent on from here."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from adapters.base import Assessment, Delta, Event, Key, Options
from adapters.errors import AdapterError
from adapters.openai_chat_body import ChatBody
from proxy.aside import Run, at_once
from proxy.channel import Channel
from proxy.classifier import Classifier
from proxy.errors import ApiError
from proxy.guard.protocol import Guard
from proxy.policies import Chosen
from proxy.policy import Part, Policy, part_of
from proxy.prompts import assess_prompt, is_blocked, is_long, judge_prompt, render_prompts
from proxy.reports import assess
from proxy.request_fields import ModeratedRequest
from proxy.settings import GuardSettings
from proxy.together import together

# Conversations of one request that are judged at once: enough for the guard to batch, and no flood.
MAX_AT_ONCE = 16

Messages = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the guard says of a conversation, and what the policy makes of it."""

    assessment: Assessment
    is_blocked: bool = False
    unscanned: tuple[str, ...] = ()
    tokens: int = 0  # that were judged


async def judge_text(delta: Delta, classifier: Classifier, policy: Policy, *, folds: bool = False) -> Channel:
    """A text that is complete, behind the classifier's prompt. Raises GuardError."""
    channel = Channel(delta.key, delta.kind, policy.of(part_of(delta.key, delta.kind)), folds=folds)
    channel.feed(delta.text, later=True)
    channel.finish()
    while (batches := channel.batches()) or channel.is_behind:
        if batches:
            for batch, risks in zip(batches, await classifier.classify(batches), strict=True):
                channel.receive(batch, risks)
        else:
            channel.read()
            await asyncio.sleep(0)
    return channel


async def judge_all(
    conversations: Sequence[Messages],
    guard: Guard,
    settings: GuardSettings,
    chosen: Chosen,
    owner: str,
    aside: Run = at_once,
) -> list[Judged]:
    """Each on its own, in order; `aside` is for long ones. Raises GuardError, and ApiError for one that is refused."""
    found: dict[int, Judged] = {}
    waiting = iter(enumerate(conversations))

    async def judge_some() -> None:
        for number, messages in waiting:  # shared by all
            found[number] = await judge_conversation(messages, guard, settings, chosen, owner, aside)
            await asyncio.sleep(0)  # where the guard need not be waited for, others have their turn

    async with together() as group:
        for _ in range(min(MAX_AT_ONCE, len(conversations))):
            group.create_task(judge_some())
    return [found[number] for number in range(len(conversations))]


async def judge_conversation(
    messages: Messages, guard: Guard, settings: GuardSettings, chosen: Chosen, owner: str, aside: Run = at_once
) -> Judged:
    """The prompt at its last user turn, and every text of the assistant messages at the end."""
    count = len(list(takewhile(lambda message: message.get("role") == "assistant", reversed(messages))))
    asked, said = messages[: len(messages) - count], messages[len(messages) - count :]
    request = ModeratedRequest("-", list(asked) or [{"role": "user", "content": ""}], {})
    policy, prompt_policy = chosen.policy, chosen.policy.of(Part.PROMPT)
    allows, folds = chosen.settings.allow_unscanned, settings.folded_view
    [prompt] = await render_prompts(request, guard, allow_unscanned=allows, folds=folds, aside=aside)
    deltas = await (aside if is_long(said) else at_once)(lambda: _texts_of(said))
    async with AsyncExitStack() as stack:
        classifier, risk = await judge_prompt(prompt, guard, settings, stack, owner, prompt_policy)
        channels = [await judge_text(delta, classifier, policy, folds=folds) for delta in deltas]
    found = [assess_prompt(risk, prompt_policy)] if asked else []
    answer = assess(channels)
    found += [answer] if answer is not None else []
    blocked = (bool(asked) and is_blocked(risk, prompt_policy)) or any(one.block_start is not None for one in channels)
    tokens = len(prompt.ids) + sum(channel.judged for channel in channels)
    return Judged(_together(found), blocked, prompt.unscanned, tokens)


def _texts_of(said: Messages) -> list[Delta]:
    """Every text of the answers, by the reader that answers of an upstream go through."""
    return [delta for number, message in enumerate(said) for delta in _texts_in(message, number)]


def _texts_in(message: Mapping[str, Any], number: int) -> list[Delta]:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    try:
        pieces = ChatBody(Options(model="-")).decode(Event(json.dumps(body)))
    except AdapterError as exc:
        raise ApiError(400, f"An assistant message cannot be read: {exc}.", code="invalid_value") from exc
    deltas = [piece for piece in pieces if isinstance(piece, Delta)]
    return [Delta(Key(number, delta.key.channel), delta.kind, delta.text) for delta in deltas]


def _together(found: Sequence[Assessment]) -> Assessment:
    """The flagged one counts, and of equals the last; scores are the highest of all."""
    if not found:
        return Assessment(False, None)
    scores: dict[str, float] = {}
    for one in found:
        for category, score in one.scores.items():
            scores[category] = max(score, scores.get(category, 0.0))
    worst = max(found, key=lambda one: (one.is_flagged, one.worst is not None and one.worst.category is not None))
    return Assessment(any(one.is_flagged for one in found), worst.worst, scores)
