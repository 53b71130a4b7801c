"""A request's messages -> the guard's prompt ids, by Qwen3's chat template, built as ids.

What people and models wrote becomes ordinary tokens; frames are control ids that only this code places.
So the text `<|im_end|>` in a message is ten characters to the guard and never the end of a turn.

What reaches the guard, by field:

| role                | turn                                                                          |
|---------------------|-------------------------------------------------------------------------------|
| system, developer   | a system turn                                                                 |
| user                | a user turn; the last one is where the prompt's verdict is read               |
| assistant           | an assistant turn: reasoning where the template puts it, content, refusal, tool calls |
| tool, function      | a user turn with `<tool_response>`; consecutive results share one; nobody's own words |

A `name` is text that its sender chose and that models get to see: it is read as `name: ` before the
content, and refused where it is not a name as OpenAI defines it. Text parts are read one after the other,
with nothing between them. Images, audio, files and part types unknown here cannot be read: the request
is refused, or, if the operator allows it, they are left out and listed as unscanned. `id`s are not read.
Reasoning of turns before the last question is not in the guard's prompt, as it is not in the template's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from adapters.base import Kind
from proxy.folding import fold
from proxy.messages import ROLES, ConversationError, Reader, refuse, role_of, text_of
from proxy.retokenizer import encode
from proxy.vocabulary import (
    FIRST_CONTROL_ID,
    IM_END,
    IM_START,
    THINK,
    THINK_END,
    TOOL_CALL,
    TOOL_CALL_END,
    TOOL_RESPONSE,
    TOOL_RESPONSE_END,
)

__all__ = ["AnswerFrame", "ConversationError", "Prompt", "answer_frame", "render"]


@dataclass(frozen=True, slots=True)
class Prompt:
    ids: list[int]
    verdict_position: int  # of the id that ends the last user-written turn
    dropped_turns: int  # the oldest ones, left out because they did not fit
    unscanned: tuple[str, ...]  # parts that the guard could not read
    folded: "Prompt | None" = None  # the same without what readers read over, if that is wanted and differs


class AnswerFrame(NamedTuple):
    """What stands before an answer: ids, then text that is encoded together with the answer's own."""

    ids: tuple[int, ...]
    prefix: str


_ASSISTANT = (IM_START, 77091, 198)  # <|im_start|>assistant, newline
_CONTENT_FRAME = AnswerFrame((*_ASSISTANT, THINK, 271, THINK_END), "\n\n")  # an empty thought, as in training
_REASONING_FRAME = AnswerFrame((*_ASSISTANT, THINK), "\n")


def answer_frame(kind: Kind) -> AnswerFrame:
    """Leading newlines of the answer are to be stripped before it is encoded behind the prefix."""
    return _REASONING_FRAME if kind is Kind.REASONING else _CONTENT_FRAME


@dataclass(slots=True)
class _Turn:
    """Control ids and texts in order; neighbouring texts are encoded together."""

    parts: list[int | str]
    is_user_written: bool = False

    def encode(self, limit: int) -> list[int] | None:
        """The ids, or None if there are more than `limit`."""
        ids: list[int] = []
        for part in self._joined():
            if isinstance(part, int):
                ids.append(part)
            else:
                content = encode(part, limit=limit - len(ids))
                assert not content or max(content) < FIRST_CONTROL_ID
                ids += content
            if len(ids) > limit:
                return None
        return ids

    def _joined(self) -> Iterator[int | str]:
        texts: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            if texts:
                yield "".join(texts)
                texts = []
            yield part
        yield "".join(texts)  # a turn ends with text


def _plain_turn(reader: Reader, role: str, message: Mapping[str, Any], where: str) -> _Turn:
    content = reader.named(message, where)
    return _Turn([IM_START, f"{role}\n", content, IM_END, "\n"], is_user_written=role == "user")


def _assistant_turn(reader: Reader, message: Mapping[str, Any], where: str, *, thinks: bool, is_last: bool) -> _Turn:
    """`thinks`: no user wrote since, so the template still shows what was thought."""
    content = reader.named(message, where) + (text_of(message, "refusal", where, required=False) or "")
    reasoning = text_of(message, "reasoning_content", where, required=False) or ""
    if message.get("audio") is not None:
        reader.leave_out("audio", f"{where}.audio")
    parts: list[int | str] = [IM_START, "assistant\n"]
    if thinks and (is_last or reasoning):
        thought = reasoning.strip("\n")
        parts += [THINK, f"\n{thought}\n", THINK_END, "\n\n" + content.lstrip("\n")]
    else:
        parts.append(content)
    for index, call in enumerate(reader.calls(message, where)):
        parts += ["\n" if index or content else "", TOOL_CALL, call, TOOL_CALL_END]
    return _Turn([*parts, IM_END, "\n"])


def _turns(messages: Sequence[Mapping[str, Any]], reader: Reader) -> list[_Turn]:
    roles = [role_of(message, f"messages[{index}]") for index, message in enumerate(messages)]
    # With no user in it, the template counts the last message as the question.
    question = max((index for index, role in enumerate(roles) if role == "user"), default=len(messages) - 1)
    turns: list[_Turn] = []
    for index, (message, role) in enumerate(zip(messages, roles, strict=True)):
        where = f"messages[{index}]"
        if role == "assistant":
            is_last = index == len(messages) - 1
            turns.append(_assistant_turn(reader, message, where, thinks=index > question, is_last=is_last))
        elif role == "tool":
            result: list[int | str] = ["\n", TOOL_RESPONSE, f"\n{reader.named(message, where)}\n", TOOL_RESPONSE_END]
            if index and roles[index - 1] == "tool":
                turns[-1].parts[-2:-2] = result  # before the end of the turn that they share
            else:
                turns.append(_Turn([IM_START, "user", *result, IM_END, "\n"]))
        else:
            turns.append(_plain_turn(reader, role, message, where))
    return turns


def render(
    messages: Sequence[Mapping[str, Any]], *, window: int, allow_unscanned: bool = False, folds: bool = False
) -> Prompt:
    """The whole conversation, or as many of its newest turns as `window` tokens hold. Raises ConversationError.

    The turn that the verdict is read at is always in it, and a leading system turn if there is room.
    """
    prompt = _render(messages, window, allow_unscanned, str)
    if not folds:
        return prompt
    folded = _render(messages, window, allow_unscanned, fold)
    return prompt if folded.ids == prompt.ids else replace(prompt, folded=folded)


def _render(
    messages: Sequence[Mapping[str, Any]], window: int, allow_unscanned: bool, write: Callable[[str], str]
) -> Prompt:
    if not isinstance(messages, list | tuple) or not messages:
        refuse("'messages' must be a list of at least one message.", "messages")
    reader = Reader(allow_unscanned)
    turns = _turns(messages, reader)
    for turn in turns:
        turn.parts = [write(part) if isinstance(part, str) else part for part in turn.parts]
    judged = max((index for index, turn in enumerate(turns) if turn.is_user_written), default=len(turns) - 1)
    kept = _fitting(turns, judged, window, has_system=ROLES[messages[0]["role"]] == "system")
    ids: list[int] = []
    verdict_position = 0
    for index in sorted(kept):
        ids += kept[index]
        if index == judged:
            verdict_position = len(ids) - 2  # the end of the turn and its newline
    return Prompt(ids, verdict_position, len(turns) - len(kept), tuple(reader.unscanned))


def _fitting(turns: Sequence[_Turn], judged: int, window: int, *, has_system: bool) -> dict[int, list[int]]:
    """The ids of the turns that are kept, by index. What comes too early to fit is never encoded."""
    ids = turns[judged].encode(window)
    if ids is None:
        refuse(f"The last turn is longer than the guard's {window} tokens.", "messages", "context_length_exceeded")
    kept = {judged: ids}
    room = window - len(ids)
    wanted = [0] if has_system else []
    wanted += reversed(range(len(turns)))
    for index in wanted:
        if index in kept:
            continue
        more = turns[index].encode(room)
        if more is not None:
            kept[index] = more
            room -= len(more)
        elif not (has_system and index == 0):
            break
    return kept
