"""The texts of one response, kept apart."""

import pytest

from adapters.base import AdapterError, Delta, Key, Kind
from proxy.channels import MAX_CHANNELS, Channels
from proxy.policy import Policy
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
