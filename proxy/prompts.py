"""The prompt's side of a request: its tokens, and its one verdict."""

import asyncio
import functools
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from adapters.base import Assessment, Note
from proxy.aside import Run, at_once
from proxy.channel import badness, note_of
from proxy.classifier import Classifier
from proxy.conversation import ConversationError, Prompt, render
from proxy.errors import ApiError, Fault, guard_failure
from proxy.guard.protocol import Guard, GuardError, GuardFault, GuardTimeout, GuardUnavailable, SequenceTooLong
from proxy.limits import Limit
from proxy.policy import Policy, Verdict
from proxy.request_fields import ModeratedRequest
from proxy.risk import PROMPT_CATEGORIES, Risk, Role
from proxy.settings import GuardSettings
from proxy.together import together

# A prompt of more characters than this is tokenized in a thread: up to 10 ms on the event loop.
OFF_LOOP_CHARACTERS = 4096
# What a message or a part takes beside its text, in characters.
PART_CHARACTERS = 16
# Of the guard's window; the rest is for the answer that it judges behind the prompt.
PROMPT_SHARE = 0.75
TOO_LONG = "context_length_exceeded"
DEFAULT_POLICY = Policy()


class PromptBlocked(Exception):
    """The policy blocks the prompt. No byte of an answer may be sent."""

    def __init__(self, note: Note) -> None:
        super().__init__("the prompt was flagged")
        self.note = note


async def render_prompts(
    request: ModeratedRequest, guard: Guard, *, allow_unscanned: bool, folds: bool = False, aside: Run = at_once
) -> list[Prompt]:
    """One for each conversation of the request. Raises ApiError for one that cannot be judged.

    `aside` is for long ones.
    """
    window = int(guard.info.window * PROMPT_SHARE)
    read = functools.partial(render, window=window, allow_unscanned=allow_unscanned, folds=folds)
    prompts = []
    for messages in request.conversations:
        run = aside if is_long(messages) else at_once
        try:
            prompts.append(await run(functools.partial(read, messages)))
        except ConversationError as exc:
            limit = Limit.WINDOW if exc.code == TOO_LONG else ""
            raise ApiError(400, str(exc), param=exc.param, code=exc.code, limit=limit) from exc
    return prompts


def is_long(messages: Any) -> bool:
    """Looked at no further than until it is: whatever is in a message can be text."""
    left, waiting = OFF_LOOP_CHARACTERS, [messages]
    while waiting:
        value = waiting.pop()
        left -= len(value) if isinstance(value, str) else PART_CHARACTERS * len(value)
        if left < 0:
            return True
        if not isinstance(value, str):
            found = value.values() if isinstance(value, dict) else value
            waiting += [one for one in found if isinstance(one, str | list | dict)]
    return False


async def judge_prompts(
    prompts: Sequence[Prompt],
    guard: Guard,
    settings: GuardSettings,
    stack: AsyncExitStack,
    owner: str,
    policy: Policy = DEFAULT_POLICY,
    choices: int = 1,
) -> tuple[Classifier, Risk]:
    """The risk that the policy treats hardest, and the classifier for all that follows. Raises GuardError."""
    judged = [await judge_prompt(prompt, guard, settings, stack, owner, policy) for prompt in prompts]
    classifier, risk = judged[0]
    if len(judged) > 1:
        classifier.share([other for other, _ in judged[1:]], choices)
    for _, other in judged[1:]:
        risk = harder(risk, other, policy)
    return classifier, risk


async def judge_prompt(
    prompt: Prompt,
    guard: Guard,
    settings: GuardSettings,
    stack: AsyncExitStack,
    owner: str,
    policy: Policy = DEFAULT_POLICY,
) -> tuple[Classifier, Risk]:
    """The prompt's risk, and the classifier for what follows it; `stack` frees that. Raises GuardError.

    Of two readings of the prompt, the risk is that of the one which the policy treats harder.
    """
    position = prompt.verdict_position
    try:
        async with asyncio.timeout(settings.admission_seconds + settings.verdict_seconds):
            stream, risks = await guard.open(prompt.ids, read=[position], role=Role.USER, owner=owner)
    except TimeoutError as exc:
        raise GuardTimeout("no verdict on the prompt within the deadline") from exc
    except OSError as exc:
        raise GuardUnavailable(type(exc).__name__) from exc
    classifier = await stack.enter_async_context(Classifier(stream, settings.verdict_seconds))
    if len(risks) != 1:
        raise GuardFault(f"{len(risks)} risks for one position")
    if prompt.folded is None:
        return classifier, risks[0]
    async with AsyncExitStack() as aside:
        _, folded = await judge_prompt(prompt.folded, guard, settings, aside, owner)
    return classifier, harder(risks[0], folded, policy)


def harder(one: Risk, other: Risk, policy: Policy) -> Risk:
    return max(one, other, key=lambda risk: (is_blocked(risk, policy), policy.counts(risk), badness(risk)))


def refusal_without_verdict(error: GuardError) -> ApiError:
    """What a request gets whose prompt cannot be judged."""
    if isinstance(error, SequenceTooLong):
        message = "The conversation is too long."
        return ApiError(400, message, param="messages", code=TOO_LONG, limit=Limit.WINDOW)
    return Fault(guard_failure(error), 503).api_error()


def assess_prompt(risk: Risk, policy: Policy) -> Assessment:
    harm = 1.0 - risk.levels[0]
    scores = {str(c): harm * p for c, p in zip(PROMPT_CATEGORIES, risk.categories, strict=True)}
    return Assessment(policy.counts(risk), note_of("prompt", 0, 0, risk), scores)


def is_blocked(risk: Risk, policy: Policy) -> bool:
    return policy.judge_prompt(risk) is Verdict.BLOCK


async def both(judge: Coroutine[Any, Any, None], call: Coroutine[Any, Any, None]) -> None:
    """Await both at once; if one fails the other is cancelled. A blocked prompt counts before the rest."""
    async with together(PromptBlocked) as group:
        group.create_task(judge)
        await call  # here, since a task begins a turn later: the upstream has the longer way
