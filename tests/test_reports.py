"""What is said of a choice when it ends."""

from adapters.base import Assessment, Key, Kind
from proxy.channel import Channel
from proxy.policy import Policy
from proxy.reports import assess, block_of, report_of
from tests.driver import Guard
from tests.fakes import Rule, labels


def channel_of(text: str, rule: Rule, name: str = "content") -> Channel:
    channel, guard = Channel(Key(0, name), Kind.CONTENT, Policy()), Guard(rule)
    channel.feed(text)
    channel.finish()
    while batches := list(channel.batches()):
        for batch in batches:
            channel.receive(batch, guard.classify(batch))
    return channel


def test_a_report_holds_the_worst_of_each_channel_and_of_all() -> None:
    channels = [channel_of("one two three", labels("SUC")), channel_of("four five", labels("SC"), "refusal")]
    prompt = Assessment(is_flagged=False, worst=None)
    report = report_of(channels, prompt)
    assert [(note.channel, note.risk_level) for note in report.notes] == [
        ("content", "Unsafe"),
        ("refusal", "Controversial"),
    ]
    assert report.prompt is prompt
    assert report.answer is not None
    assert report.answer.worst == report.notes[0]
    assert not report.answer.is_flagged
    assert report.scanned is None


def test_a_flagged_channel_flags_the_choice() -> None:
    found = assess([channel_of("one", labels("S"), "refusal"), channel_of("one two three", labels("UU"))])
    assert found is not None
    assert found.is_flagged
    assert max(found.scores, key=lambda name: found.scores[name]) == "Violent"


def test_nothing_judged_is_nothing_said() -> None:
    assert assess([]) is None
    assert report_of([channel_of("", labels(""))], None).notes == ()


def test_a_gate_that_was_opened_is_said() -> None:
    judged = channel_of("one two", labels("SS"))
    assert report_of([judged], None, is_open=True).scanned == "partial"
    assert report_of([Channel(Key(0, "content"), Kind.CONTENT, Policy())], None, is_open=True).scanned == "none"


def test_a_block_begins_where_the_text_ends() -> None:
    channel = channel_of("one two three four", labels("SUU"))
    block = block_of(channel, 3, "no")
    assert (block.choice, block.flagged.start, block.flagged.end) == (0, 3, len("one two three"))
    assert (block.notice, block.tokens) == ("no", 3)
    assert block_of(channel, 9, "").flagged.start == 9  # a window let some of it go
    assert block_of(channel, 18, "").flagged.end == 18
