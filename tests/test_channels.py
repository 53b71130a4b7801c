"""The texts of one response, kept apart."""

import pytest

from adapters.base import Delta, Key, Kind
from adapters.errors import AdapterError
from proxy.channel import steps_of
from proxy.channels import MAX_CHANNELS, MAX_TURN_TOKENS, Channels
from proxy.policy import Policy
from proxy.structs import Batch
from proxy.view import MAX_BATCH_TOKENS
from tests.driver import Guard
from tests.fakes import SAFE, risk


def delta(text: str, channel: str = "content", choice: int = 0) -> Delta:
    return Delta(Key(choice, channel), Kind.CONTENT, text)


def test_each_key_has_a_channel_of_its_own() -> None:
    channels = Channels(Policy())
    for choice in (0, 1):
        channels.feed(delta("a", choice=choice))
        channels.feed(delta("bc", "refusal", choice))
    assert [channel.length for channel in channels.of(1)] == [1, 2]
    assert len(channels.by_key) == 4


def test_half_a_character_waits_for_the_rest_and_is_replaced_at_the_end() -> None:
    channels = Channels(Policy())
    assert channels.feed(delta("hi \ud83d")).text == "hi "
    assert channels.feed(delta("\ude00\ud83d")).text == "😀"
    assert [rest.text for rest in channels.finish(0)] == ["\ufffd"]
    assert channels.by_key[Key(0, "content")].length == len("hi 😀\ufffd")


def test_the_text_that_went_before_another_is_judged_to_its_end() -> None:
    channels = Channels(Policy())
    channels.feed(delta("one two", "reasoning_content"))
    first = channels.by_key[Key(0, "reasoning_content")]
    before = sum(len(batch.ids) for batch in first.batches())
    channels.feed(delta("yes", choice=1))
    assert sum(len(batch.ids) for batch in first.batches()) == before
    channels.feed(delta("yes"))
    assert sum(len(batch.ids) for batch in first.batches()) == before + 1


def test_channels_are_bounded() -> None:
    channels = Channels(Policy())
    for number in range(MAX_CHANNELS):
        channels.feed(delta("x", f"tool_calls.{number}.name"))
    with pytest.raises(AdapterError):
        channels.feed(delta("x", "one too many"))


def test_a_whole_value_is_complete_at_once_and_judged_as_its_escapes_spell_it() -> None:
    channels, key = Channels(Policy()), Key(0, "blocks.0")
    channels.feed(Delta(key, Kind.OBJECT, '{"a":"b\\nc"}'))
    channel = channels.by_key[key]
    assert len(list(channel.batches())) == 2  # nothing waits for more: the last token is there in both views
    for batch in list(channel.batches()):
        channel.receive(batch, [risk(SAFE)] * len(batch.ids))
    assert channel.cleared == channel.length


def test_what_comes_at_once_is_read_a_turn_at_a_time_and_to_the_same_tokens() -> None:
    """Texts of many turns in several channels, with an escape that opens a second view late."""
    text = "".join(f"word{number} Wörter 漢字 {number * 7919} " for number in range(200))
    hidden = text + "\\u0062ad "
    found: dict[bool, dict[tuple[Key, int], list[int]]] = {}
    for is_slow in (True, False):
        channels, guard = Channels(Policy()), Guard()
        ids = found.setdefault(is_slow, {})
        given = [(Key(0, "a"), Kind.CONTENT, text), (Key(1, "b"), Kind.ARGUMENTS, hidden)]
        for key, kind, whole in given:
            for part in steps_of(whole) if is_slow else [whole]:
                channels.feed(Delta(key, kind, part))
                while batches := channels.batches(lambda _: False) if is_slow else []:
                    take(channels, batches, guard, ids)
            list(channels.finish(key.choice))
        while batches := channels.batches(lambda _: False):
            assert sum(len(batch.ids) for batch in batches) < 2 * MAX_TURN_TOKENS + MAX_BATCH_TOKENS
            take(channels, batches, guard, ids)
        assert [channel.cleared for channel in channels.by_key.values()] == [len(text), len(hidden)]
    assert found[True] == found[False]
    assert set(found[True]) == {(Key(0, "a"), 0), (Key(1, "b"), 0), (Key(1, "b"), 1)}


def take(channels: Channels, batches: list[Batch], guard: Guard, ids: dict[tuple[Key, int], list[int]]) -> None:
    for batch in batches:
        ids.setdefault((batch.key, batch.view), []).extend(batch.ids)
        channels.by_key[batch.key].receive(batch, guard.classify(batch))


def test_what_nobody_will_judge_is_counted_and_not_kept() -> None:
    channels = Channels(Policy())
    channels.stop()
    for _ in range(3):
        channels.feed(Delta(Key(0, "content"), Kind.CONTENT, "x" * 10_000))
    assert channels.by_key[Key(0, "content")].length == 30_000
    assert channels.batches(lambda _: False) == []
