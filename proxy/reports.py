"""What is said of a choice when it ends: its worst notes, its assessment, and where it was cut."""

from collections.abc import Sequence

from adapters.base import Assessment, Block, Report
from proxy.channel import Channel, badness, note_of


def report_of(channels: Sequence[Channel], prompt: Assessment | None, *, is_open: bool = False) -> Report:
    """Of one choice, from its channels. `is_open`: the gate was opened, so not all of it is judged."""
    told = [c for c in channels if c.holds]  # of a watched text only the record tells
    notes = [note_of(c.key.channel, c.worst.start, c.worst.end, c.worst.risk) for c in told if c.worst]
    scanned = ("partial" if any(c.cleared for c in channels) else "none") if is_open else None
    return Report(tuple(notes), prompt, assess(told), scanned)


def assess(channels: Sequence[Channel]) -> Assessment | None:
    """A choice as a whole; None where nothing of it was judged."""
    spans = [(channel, channel.worst) for channel in channels if channel.worst is not None]
    if not spans:
        return None
    channel, span = max(spans, key=lambda pair: badness(pair[1].risk))
    scores: dict[str, float] = {}
    for one in channels:
        for category, score in one.scores.items():
            scores[category] = max(score, scores.get(category, 0.0))
    worst = note_of(channel.key.channel, span.start, span.end, span.risk)
    return Assessment(any(one.flagged is not None for one in channels), worst, scores)


def block_of(channel: Channel, released: int, notice: str) -> Block:
    """The cut of a channel that is blocked, of which `released` characters have left."""
    assert channel.flagged is not None  # a block is a flagged run
    assert channel.block_start is not None
    # In window mode some flagged characters may have left already: then the text ends where it is.
    start = max(channel.block_start, released)
    note = note_of(channel.key.channel, start, max(start, channel.flagged.end), channel.flagged.risk)
    return Block(channel.key.choice, note, channel.judged, notice)
