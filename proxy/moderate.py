"""`weir moderate`: judge a conversation that is complete, token by token, the way the proxy would.

The prompt gets one verdict, at the end of the last user turn. Assistant messages at the end are
answers: each of their texts is judged behind the turns before it, and no cut hides the rest.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adapters.base import Delta, Event, Kind, Options
from adapters.errors import AdapterError
from adapters.openai_chat_body import ChatBody
from proxy.chat_request import read_chat_request
from proxy.classifier import Classifier
from proxy.conversation import ConversationError, Prompt, render
from proxy.escapes import EscapeDecoder
from proxy.folding import Folder
from proxy.guard.protocol import Guard, GuardError, SequenceTooLong
from proxy.guards import open_guard
from proxy.policies import policy_of
from proxy.policy import Part, Policy, part_of
from proxy.prompts import harder
from proxy.request_body import BadRequest, read_object
from proxy.request_fields import Terms
from proxy.risk import Risk, RiskLevel, Role
from proxy.settings import Settings
from proxy.structs import Batch, Span
from proxy.view import View

# The guard keeps the deadline of its own settings; this one is for a guard that hangs.
HANG_SECONDS = 600.0
# Exit statuses.
SAFE, FAILED, BAD_INPUT, FLAGGED = 0, 1, 2, 3
STYLES = {RiskLevel.SAFE: "green", RiskLevel.CONTROVERSIAL: "yellow", RiskLevel.UNSAFE: "bold red"}


class BadConversation(Exception):
    """What was given is no conversation that can be judged, and why."""


@dataclass(frozen=True, slots=True)
class JudgedText:
    """One text of an answer."""

    message: int  # index in the conversation
    channel: str  # "content", "tool_calls.0.arguments"
    text: str
    tokens: tuple[Span, ...]
    flagged_at: int | None  # offset of the first character that the proxy would withhold


@dataclass(frozen=True, slots=True)
class Moderation:
    """The outcome for a conversation."""

    guard: str
    policy: Policy
    prompt: Risk
    is_prompt_flagged: bool
    texts: tuple[JudgedText, ...] = ()
    dropped_turns: int = 0  # the oldest ones, beyond the guard's window
    unscanned: int = 0  # parts that no one can judge, such as images

    @property
    def is_flagged(self) -> bool:
        return self.is_prompt_flagged or any(text.flagged_at is not None for text in self.texts)


def run(source: str, settings: Settings, *, as_json: bool) -> int:
    """Judge the conversation in the file `source` ("-" is standard input), print it, return the exit status."""
    try:
        body: bytes | BadConversation = read_source(source)
    except BadConversation as exc:
        body = exc
    return run_one(source, body, settings, as_json=as_json)


def run_one(name: str, body: bytes | dict[str, Any] | BadConversation, settings: Settings, *, as_json: bool) -> int:
    """The same for a conversation that was read, or could not be."""
    try:
        moderation = asyncio.run(_moderate(messages_of(body, settings), settings))
    except BadConversation as exc:
        print(f"{name}: {exc}", file=sys.stderr)
        return BAD_INPUT
    except GuardError as exc:
        print(f"There is no verdict: {exc}.", file=sys.stderr)
        return FAILED
    if as_json:
        print(json.dumps(as_dict(moderation), ensure_ascii=False, indent=2))
    else:
        print_table(moderation, Console())
    return FLAGGED if moderation.is_flagged else SAFE


def read_body(raw: bytes, settings: Settings) -> dict[str, Any]:
    """Raises BadConversation."""
    try:
        return read_object(raw, max_depth=settings.server.max_json_depth)
    except BadRequest as exc:
        raise BadConversation(exc.message) from exc


def messages_of(body: bytes | dict[str, Any] | BadConversation, settings: Settings) -> list[dict[str, Any]]:
    """The messages of a conversation as bytes or as an object. Raises BadConversation, the one given too."""
    if isinstance(body, BadConversation):
        raise body
    if isinstance(body, bytes):
        body = read_body(body, settings)
    try:
        return read_chat_request({"model": "-", "messages": body.get("messages")}, Terms(settings.server)).messages
    except BadRequest as exc:
        raise BadConversation(exc.message) from exc


async def moderate(
    messages: Sequence[dict[str, Any]],
    guard: Guard,
    policy: Policy,
    *,
    allow_unscanned: bool = False,
    folds: bool = False,
) -> Moderation:
    """Raises BadConversation, GuardError."""
    answers = len(list(takewhile(lambda message: message["role"] == "assistant", reversed(messages))))
    ends = range(len(messages) - answers, len(messages)) if answers else [len(messages)]
    prompts = [_prompt(messages[:end], guard, allow_unscanned, folds=folds) for end in ends]
    # Monitoring judges every token: where the proxy would cut, this goes on and remembers the place.
    prompt_policy, watching = policy.of(Part.PROMPT), policy.watching()
    risks, texts, unscanned = list[Risk](), list[JudgedText](), len(prompts[0].unscanned)
    for number, prompt in zip(ends, prompts, strict=True):
        async with _opened(guard, prompt) as (classifier, risk):
            if prompt.folded is not None:
                async with _opened(guard, prompt.folded) as (_, folded):
                    risk = harder(risk, folded, prompt_policy)
            risks.append(risk)
            deltas, dropped = _texts_of(messages[number], number) if answers else ([], 0)
            unscanned += dropped
            for delta in deltas:
                part = part_of(delta.key, delta.kind)
                texts.append(await _judge(classifier, delta, number, watching.of(part), folds=folds))
    name = f"{guard.info.model}@{guard.info.revision}"
    is_flagged = prompt_policy.counts(risks[0])
    return Moderation(name, policy, risks[0], is_flagged, tuple(texts), prompts[0].dropped_turns, unscanned)


async def _moderate(messages: Sequence[dict[str, Any]], settings: Settings) -> Moderation:
    guard = await open_guard(settings, may_fork=False)
    try:
        allows, folds = settings.policy.allow_unscanned, settings.guard.folded_view
        return await moderate(messages, guard, policy_of(settings.policy), allow_unscanned=allows, folds=folds)
    finally:
        await guard.close()


def read_source(source: str) -> bytes:
    """The file's bytes. Raises BadConversation."""
    try:
        return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as exc:
        raise BadConversation(f"cannot be read: {(exc.strerror or 'unknown reason').lower()}.") from exc


def _prompt(messages: Sequence[Mapping[str, Any]], guard: Guard, allow_unscanned: bool, *, folds: bool) -> Prompt:
    if not any(message["role"] == "user" for message in messages):
        raise BadConversation("There is no user message before the answer.")
    try:
        return render(messages, window=guard.info.window, allow_unscanned=allow_unscanned, folds=folds)
    except ConversationError as exc:
        raise BadConversation(str(exc)) from exc


@asynccontextmanager
async def _opened(guard: Guard, prompt: Prompt) -> AsyncIterator[tuple[Classifier, Risk]]:
    try:
        stream, [risk] = await guard.open(prompt.ids, read=[prompt.verdict_position], role=Role.USER)
    except SequenceTooLong as exc:
        raise BadConversation("The conversation is too long for this guard.") from exc
    async with Classifier(stream, HANG_SECONDS) as classifier:
        yield classifier, risk


def _texts_of(message: Mapping[str, Any], number: int) -> tuple[list[Delta], int]:
    """Every text of an answer, by the proxy's own reader, and how many fields are none."""
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    reader = ChatBody(Options(model="-"))
    try:
        pieces = reader.decode(Event(json.dumps(body)))
    except AdapterError as exc:
        raise BadConversation(f"Message {number} cannot be read as an answer: {exc}.") from exc
    return [piece for piece in pieces if isinstance(piece, Delta)], reader.dropped


async def _judge(
    classifier: Classifier, delta: Delta, number: int, policy: Policy, *, folds: bool = False
) -> JudgedText:
    """Judge a text as it stands and, where it holds JSON escapes, as they spell it too; and folded, if wanted."""
    views = [View(delta.kind, policy)]
    if delta.kind is Kind.ARGUMENTS and "\\" in delta.text:
        views.append(View(delta.kind, policy, EscapeDecoder()))
    if folds:
        views.append(View(delta.kind, policy, Folder()))
    tokens, flags = list[Span](), list[int]()
    for index, view in enumerate(views):
        view.feed(delta.text)
        view.finish()
        while (found := view.batch()) is not None:
            [risks] = await classifier.classify([Batch(delta.key, delta.kind, index, *found)])
            for span, _, run_start in view.receive(risks):
                tokens += [span] if index == 0 else []
                flags += [run_start] if view.is_flagged else []
    return JudgedText(number, delta.key.channel, delta.text, tuple(tokens), min(flags, default=None))


def as_dict(moderation: Moderation) -> dict[str, Any]:
    """For programs. Offsets count characters of each text; categories are named only where they mean something."""
    return {
        "guard": moderation.guard,
        "policy": {"name": moderation.policy.name, "mode": str(moderation.policy.mode)},
        "flagged": moderation.is_flagged,
        "prompt": {"flagged": moderation.is_prompt_flagged} | _risk_dict(moderation.prompt),
        "texts": [
            {
                "message": text.message,
                "channel": text.channel,
                "flagged_at": text.flagged_at,
                "tokens": [
                    {"text": text.text[span.start : span.end], "start": span.start, "end": span.end}
                    | _risk_dict(span.risk)
                    for span in text.tokens
                ],
            }
            for text in moderation.texts
        ],
        "dropped_turns": moderation.dropped_turns,
        "unscanned": moderation.unscanned,
    }


def _risk_dict(risk: Risk) -> dict[str, Any]:
    is_safe = risk.level is RiskLevel.SAFE
    return {
        "risk_level": str(risk.level),
        "risk_prob": round(risk.probability, 4),
        "category": None if is_safe else str(risk.category),
        "category_prob": None if is_safe else round(risk.category_probability, 4),
    }


def print_table(moderation: Moderation, console: Console) -> None:
    table = Table("where", "token", "risk", "p", "category", "p", title=f"{moderation.guard}, {moderation.policy.mode}")
    table.add_row("prompt", "", *_cells(moderation.prompt), end_section=True)
    for text in moderation.texts:
        where = f"{text.message}.{text.channel}"
        for span in text.tokens:
            is_withheld = text.flagged_at is not None and span.end > text.flagged_at
            token = Text(_visible(text.text[span.start : span.end]), STYLES[span.risk.level] + " strike" * is_withheld)
            table.add_row(where, token, *_cells(span.risk), end_section=span is text.tokens[-1])
            where = ""
    console.print(table)
    for line in _summary(moderation):
        console.print(Text(line))


def _visible(text: str) -> str:
    """Line breaks and control characters by their escapes: this text comes from who knows where."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _cells(risk: Risk) -> tuple[Text, str, str, str]:
    level = Text(str(risk.level), STYLES[risk.level])
    if risk.level is RiskLevel.SAFE:
        return level, f"{risk.probability:.2f}", "", ""
    return level, f"{risk.probability:.2f}", str(risk.category), f"{risk.category_probability:.2f}"


def _summary(moderation: Moderation) -> Iterator[str]:
    if moderation.is_prompt_flagged:
        yield f"The prompt is flagged: {moderation.prompt.category}."
    for text in moderation.texts:
        if text.flagged_at is not None:
            where = f"message {text.message}, {text.channel}"
            yield f"Flagged from character {text.flagged_at} of {len(text.text)}: {where}."
    if not moderation.is_flagged:
        tokens = sum(len(text.tokens) for text in moderation.texts)
        yield f"Nothing is flagged: the prompt and {tokens} tokens of answers."
    if moderation.dropped_turns:
        yield f"The oldest {moderation.dropped_turns} turns do not fit the guard's window and were left out."
    if moderation.unscanned:
        yield f"{moderation.unscanned} parts could not be judged."
