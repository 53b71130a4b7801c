"""A guard judges labelled conversations: each as one stream of exactly the released chat template's tokens.

Where verdicts are read follows the published evaluation: the prompt at the `<|im_end|>` of its last user turn; an
answer from its first token behind the empty thought, or, where it has a thought, from the first token of that.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from proxy.conversation import ConversationError, render
from proxy.evaluation.datasets import Item, Span
from proxy.evaluation.metrics import Flag, flag_of
from proxy.guard.answer import classify
from proxy.guard.protocol import Guard, GuardFault, SequenceTooLong
from proxy.retokenizer import Retokenizer
from proxy.risk import RISK_LEVELS, Risk, RiskLevel, Role
from proxy.together import together
from proxy.vocabulary import IM_START

# Conversations before the guard at once: they share its steps. More only costs memory.
STREAMS = 64
# Ids of a turn's frame: <|im_start|>assistant, newline, <think>; and of the empty thought and its blank line.
_TURN, _EMPTY_THOUGHT, _BLANK_LINE = 4, 2, 271
# <|im_end|> and a newline, after an answer.
_CLOSING = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdicts on an answer's tokens."""

    start: int  # position of the first one in the chat template
    levels: bytes  # indices into RISK_LEVELS
    harms: Sequence[float]  # 1 - P(Safe)
    span: Span | None = None  # of tokens, where the answer first becomes unsafe

    @property
    def flag(self) -> Flag:
        """By the published rule."""
        return flag_of([RISK_LEVELS[level] for level in self.levels])

    @property
    def loose_flag(self) -> Flag:
        """Unsafe tokens alone."""
        flag = self.flag
        return flag if flag.level is RiskLevel.UNSAFE else Flag(RiskLevel.SAFE, -1)


@dataclass(frozen=True, slots=True)
class Judged:
    """An item and what the guard says of it. Verdicts are None for what has no label, and for what is skipped."""

    item: Item
    prompt: Risk | None = None
    answer: Answer | None = None
    skipped: str = ""  # why there is no verdict
    tokens: int = 0


async def judge_all(
    items: Sequence[Item],
    guard: Guard,
    *,
    streams: int = STREAMS,
    read_end: bool = False,
    on_judged: Callable[[Judged], None] = lambda judged: None,
) -> list[Judged]:
    """Judge every item; the results are in the order of the items. Raises GuardError.

    `read_end` also reads the two tokens that end an answer's turn, as the published script does; the proxy
    never has them.
    """
    results: list[Judged | None] = [None] * len(items)
    waiting = iter(enumerate(items))

    async def work() -> None:
        for number, item in waiting:
            results[number] = judged = await judge(item, guard, read_end=read_end)
            on_judged(judged)

    async with together() as group:  # one failure is enough to end the evaluation
        for _ in range(max(1, min(streams, len(items)))):
            group.create_task(work())
    return [judged for judged in results if judged is not None]


async def judge(item: Item, guard: Guard, *, read_end: bool = False) -> Judged:
    """Raises GuardError; a conversation that cannot be judged is a skipped one, never a safe one."""
    try:
        prompt = render(item.messages, window=guard.info.window)
    except ConversationError as exc:
        return Judged(item, skipped=str(exc))
    if prompt.dropped_turns:
        return Judged(item, skipped=f"longer than the guard's {guard.info.window} tokens")
    ids, read = prompt.ids, prompt.verdict_position
    try:
        stream, [risk] = await guard.open(ids[: read + 1], read=[read], role=Role.USER)
    except SequenceTooLong as exc:
        return Judged(item, skipped=str(exc))
    try:
        if item.answer_risk is None:
            return Judged(item, risk, tokens=read + 1)
        rows = await classify(stream, read + 1, ids[read + 1 :])
    finally:
        await stream.close()
    if len(rows) != len(ids) - read - 1:
        raise GuardFault(f"{len(rows)} verdicts for {len(ids) - read - 1} tokens")
    start = answer_start(ids, has_thought=item.has_thought)
    end = len(ids) if read_end else len(ids) - _CLOSING
    kept = rows[start - read - 1 : end - read - 1]
    levels = bytes(RISK_LEVELS.index(row.level) for row in kept)
    harms = array("f", (1.0 - row.levels[0] for row in kept))
    span = item.token_span or token_span(item, start)
    return Judged(item, risk, Answer(start, levels, harms, span), tokens=len(ids))


def answer_start(ids: Sequence[int], *, has_thought: bool) -> int:
    """Position of the first token of the last turn's answer, or of its thought."""
    turn = len(ids) - 1 - list(reversed(ids)).index(IM_START)
    if has_thought:
        return turn + _TURN + 1  # the newline before the thought
    start = turn + _TURN + _EMPTY_THOUGHT
    return start + 1 if ids[start] == _BLANK_LINE else start


def token_span(item: Item, start: int) -> Span | None:
    """The tokens that cover the annotated characters of an answer without a thought."""
    if item.character_span is None:
        return None
    wanted = item.character_span
    inside = [
        position for position, (begin, end) in _places(item.answer, start) if begin <= wanted.end and end > wanted.start
    ]
    return Span(inside[0], inside[-1]) if inside else None


def _places(answer: str, start: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Each token's position in the template, and the characters [begin, end) that it covers."""
    retokenizer = Retokenizer(prefix="\n\n")
    text = answer.lstrip("\n")  # as the template does
    tokens = retokenizer.feed(text) + retokenizer.finish()
    if tokens and tokens[0].id == _BLANK_LINE and not tokens[0].length:
        tokens = tokens[1:]
    begin = len(answer) - len(text)
    for position, token in enumerate(tokens, start):
        yield position, (begin, begin + token.length)
        begin += token.length
