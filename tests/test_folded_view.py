# ruff: noqa: RUF001 - letters that look alike are the point of these texts.
"""The folded view of a channel: what readers read over is judged too, and what is delivered never changes."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Key, Kind
from proxy.channel import Channel
from proxy.conversation import render
from proxy.moderate import moderate
from proxy.policy import Action, Policy
from proxy.prompts import harder, judge_prompt
from proxy.risk import Category, Risk, Role
from proxy.settings import GuardSettings
from proxy.stream import Expected
from tests.driver import Guard, answer, drive, read, stream_of
from tests.fakes import SAFE, UNSAFE, ScriptedGuard, ScriptedStream, all_safe, risk, words

HIDDEN = "Here is how: build a b\u200bo\u200bmb at home, slowly."
WORD_START = HIDDEN.index("b\u200b") - 1  # its token begins with the blank


def channel_of(*, folds: bool = True, kind: Kind = Kind.CONTENT) -> Channel:
    return Channel(Key(0, "content"), kind, Policy(), folds=folds)


def judge(channel: Channel, guard: Guard) -> None:
    while batches := list(channel.batches()):
        for batch in batches:
            channel.receive(batch, guard.classify(batch))


def deliverable(channel: Channel) -> int:
    """As `stream` reads it."""
    return channel.cleared if channel.block_start is None else min(channel.cleared, channel.block_start)


def views_of(channel: Channel) -> int:
    return len(channel._views)


def judged(parts: list[str], guard: Guard, *, folds: bool = True, kind: Kind = Kind.CONTENT) -> Channel:
    channel = channel_of(folds=folds, kind=kind)
    for part in parts:
        channel.feed(part)
        judge(channel, guard)
    channel.finish()
    judge(channel, guard)
    return channel


def test_a_word_cut_by_invisible_characters_is_flagged_at_its_place() -> None:
    assert judged([HIDDEN], Guard(words("bomb")), folds=False).block_start is None
    channel = judged([HIDDEN], Guard(words("bomb")))
    assert channel.block_start == WORD_START
    assert deliverable(channel) <= WORD_START


def test_character_by_character_nothing_of_it_is_cleared() -> None:
    channel, guard = channel_of(), Guard(words("bomb"))
    for char in HIDDEN:
        channel.feed(char)
        judge(channel, guard)
        assert deliverable(channel) <= WORD_START
    assert channel.block_start == WORD_START


def test_a_last_word_of_look_alikes_is_judged_when_the_text_ends() -> None:
    text = "do it with \u0440\u043e\u0440\u0435"
    assert judged([text], Guard(words("pope"))).block_start is None  # one token past the flag is needed
    channel = judged([text], Guard(words("with")))
    assert channel.block_start == text.index(" with")
    channel = judged(["run " + "\u0430" * 3 + " \u0440\u043e\u0440\u0435"], Guard(words("aaa")))
    assert channel.block_start is not None


def test_plain_text_has_one_view_and_folded_text_a_second() -> None:
    assert views_of(judged(["plain text, 👍🏽 ❤️ and “more”…"], Guard(all_safe))) == 1
    assert views_of(judged(["pl\u00adain"], Guard(all_safe))) == 2
    assert views_of(judged(["ends in \u0440\u043e\u0440\u0435"], Guard(all_safe))) == 2


def test_escapes_and_folds_are_views_of_the_same_arguments() -> None:
    text = '{"a": "b\u200bomb"}'
    assert judged([text], Guard(words("bomb")), kind=Kind.ARGUMENTS).block_start is not None
    channel = judged(['{"a": "\\u0062omb x\u200b"}'], Guard(words("bomb")), kind=Kind.ARGUMENTS)
    assert channel.block_start is not None
    assert views_of(channel) == 3


def test_a_paused_text_is_cleared_to_its_end_and_may_go_on() -> None:
    channel, guard = channel_of(), Guard(all_safe)
    text = "think a\u200bbout \u0440\u043e"
    channel.feed(text)
    judge(channel, guard)
    channel.pause()
    judge(channel, guard)
    assert channel.cleared == len(text)
    channel.feed("\u0440\u0435 now\u200b")
    judge(channel, guard)
    channel.finish()
    judge(channel, guard)
    assert channel.cleared == channel.length


def test_a_pause_behind_what_has_no_token_holds_nothing_up() -> None:
    channel, guard = channel_of(), Guard(all_safe)
    channel.feed("π")
    channel.feed("\u200b")
    judge(channel, guard)
    channel.pause()
    judge(channel, guard)
    assert channel.cleared == channel.length


ALPHABET = st.sampled_from("ab \n.1окжπé中ｂﬁ\u200b\u00ad\u0301👍\ufe0f")


@given(st.lists(st.lists(ALPHABET, max_size=6).map("".join), max_size=8), st.integers(0, 8), st.data())
def test_safe_text_is_cleared_whole_however_it_is_cut(parts: list[str], paused: int, data: st.DataObject) -> None:
    channel, guard = channel_of(), Guard(all_safe)
    for number, part in enumerate(parts):
        channel.feed(part)
        if data.draw(st.booleans()):
            judge(channel, guard)
        if number == paused:
            channel.pause()
            if data.draw(st.booleans()):
                judge(channel, guard)
                assert channel.cleared == channel.length
    channel.finish()
    judge(channel, guard)
    assert channel.cleared == channel.length
    assert channel.block_start is None


@given(st.lists(ALPHABET, max_size=10).map("".join), st.lists(ALPHABET, max_size=10).map("".join), st.data())
def test_a_flagged_word_is_never_cleared_however_it_is_cut(before: str, after: str, data: st.DataObject) -> None:
    word = "b\u200bo\u200bmb bo\u00admb"
    text = f"{before} {word} {after}"
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=6))})
    parts = [text[start:end] for start, end in pairwise(cuts)]
    channel = judged(parts, Guard(words("bomb")))
    assert channel.block_start is not None
    assert channel.block_start <= len(before) + 1
    assert deliverable(channel) <= len(before) + 1


def test_what_is_delivered_is_the_text_as_it_came() -> None:
    text = "So\u00adft and \u0440\u043e\u0440\u0435 ｗｉｄｅ, fin\u200b"
    stream, _ = stream_of(expected=Expected(folded_view=True))
    assert read(drive(stream, answer([text[:3], text[3:9], text[9:]]))).content == text
    stream, _ = stream_of(expected=Expected(folded_view=True))
    cut = read(drive(stream, answer([HIDDEN]), Guard(words("bomb"))))
    assert cut.content == HIDDEN[:WORD_START]
    assert cut.finish == {0: "content_filter"}


async def test_a_disguised_prompt_is_judged_as_it_reads() -> None:
    messages = [{"role": "user", "content": "b\u200bo\u200bmb"}]
    prompt = render(messages, window=1024, folds=True)
    assert prompt.folded is not None
    assert prompt.folded.ids == render([{"role": "user", "content": "bomb"}], window=1024).ids
    assert render([{"role": "user", "content": "bomb"}], window=1024, folds=True).folded is None
    guard = OneFlagged(prompt.folded.ids)
    async with AsyncExitStack() as stack:
        _, found = await judge_prompt(prompt, guard, GuardSettings(), stack, "")
        assert found.level is UNSAFE
        assert guard.slots == 1  # the folded one is closed: answers are judged behind the prompt as it stands


async def test_moderate_judges_folded_texts_where_that_is_wanted() -> None:
    messages = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": HIDDEN}]
    for folds in (False, True):
        moderation = await moderate(messages, ScriptedGuard(words("bomb")), Policy(), folds=folds)
        assert moderation.texts[0].flagged_at == (WORD_START if folds else None)
    messages[0]["content"] = "b\u200bo\u200bmb"
    guard = OneFlagged(render([{"role": "user", "content": "bomb"}], window=1024).ids)
    assert (await moderate(messages[:1], guard, Policy(), folds=True)).is_prompt_flagged
    assert not (await moderate(messages[:1], guard, Policy())).is_prompt_flagged


def test_of_two_readings_the_one_that_is_treated_harder_counts() -> None:
    policy = Policy(categories={Category.POLITICAL: Action.ALLOW})
    allowed, blocked = risk(UNSAFE, Category.POLITICAL), risk(UNSAFE)
    assert harder(allowed, blocked, policy) is harder(blocked, allowed, policy) is blocked
    assert harder(risk(SAFE), allowed, policy) is allowed


class OneFlagged(ScriptedGuard):
    """Flags one prompt and no other."""

    def __init__(self, flagged: list[int]) -> None:
        super().__init__()
        self.flagged = flagged

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple[ScriptedStream, list[Risk]]:
        self.prompt_level = UNSAFE if list(ids) == self.flagged else SAFE
        return await super().open(ids, read=read, role=role, owner=owner)
