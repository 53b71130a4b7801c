"""All moderated texts of one response, each as a channel, opened by its first delta."""

from collections.abc import Callable, Iterator
from typing import Final

from adapters.base import Delta, Key, Kind
from adapters.errors import AdapterError
from proxy.channel import STEP, Channel, cost_of
from proxy.limits import Limit
from proxy.policy import Policy, part_of
from proxy.structs import Batch
from proxy.trace import Traces

# Channels of one response: far above parallel tool calls in practice.
MAX_CHANNELS = 512
# Of all channels, for one call of the guard: with what is done for each token, 5 ms of the event loop.
MAX_TURN_TOKENS: Final = 512


# Asked for with each chunk; a look into the enum takes 0.15 us in Python 3.11.
_OBJECT: Final = Kind.OBJECT


class Channels:
    def __init__(self, policy: Policy, *, folds: bool = False, traces: Traces | None = None) -> None:
        self._policy = policy
        self._folds = folds
        self._traces = traces
        self._last: dict[int, Channel] = {}  # the channel of each choice that text last arrived for
        self.by_key: dict[Key, Channel] = {}
        self._newest: Channel | None = None  # that text last arrived for, of all
        self._room = STEP  # what may be read in this turn, of all channels
        self._is_stopped = False
        self.has_read = False  # in the last turn, of what had come before it
        self.has_more = False  # tokens than it has found

    def feed(self, delta: Delta) -> Delta:
        """Add a delta to its channel; returns it as it can be delivered. Raises AdapterError."""
        channel = self._newest
        if channel is None or channel.key is not delta.key:
            channel = self._newest = self._turn_to(delta)
        delta = channel.joiner.feed(delta)
        if self._is_stopped:
            channel.skip(delta.text)
        else:
            self._room -= cost_of(delta.text)
            channel.feed(delta.text, later=self._room < 0)
        if delta.kind is _OBJECT:  # no more of it will come, so nothing behind it has to wait
            channel.finish()
        return delta

    def _turn_to(self, delta: Delta) -> Channel:
        """The channel of a delta, after another's text. Raises AdapterError."""
        key = delta.key
        channel = self.by_key.get(key) or self._open(delta)
        last = self._last.get(key.choice)
        if last is not channel:
            if last is not None:
                last.pause()
            self._last[key.choice] = channel
        return channel

    def _open(self, delta: Delta) -> Channel:
        """Raises AdapterError."""
        if len(self.by_key) >= MAX_CHANNELS:
            raise AdapterError(f"more than {MAX_CHANNELS} channels", limit=Limit.CHANNELS)
        key = delta.key
        policy = self._policy.of(part_of(key, delta.kind))
        trace = self._traces.open(key) if self._traces is not None else None
        channel = self.by_key[key] = Channel(key, delta.kind, policy, folds=self._folds, trace=trace)
        return channel

    def stop(self) -> None:
        """Nobody will judge what comes from now on."""
        self._is_stopped = True

    def batches(self, is_cut: Callable[[int], bool]) -> list[Batch]:
        """What to classify next, as much as a turn allows: whatever comes at once, others do not wait for it."""
        self.has_read = False
        found = self._batches(is_cut)
        while not found and any(channel.is_behind and not is_cut(key.choice) for key, channel in self.by_key.items()):
            self._room = STEP  # what was read had no tokens
            found = self._batches(is_cut)
        self._room = STEP
        return found

    def _batches(self, is_cut: Callable[[int], bool]) -> list[Batch]:
        found: list[Batch] = []
        self.has_more = False
        tokens = 0
        for key, channel in self.by_key.items():
            if is_cut(key.choice):
                continue
            batches = channel.batches()
            while not batches and channel.is_behind and self._room > 0:
                self._room -= channel.read()
                self.has_read = True
                batches = channel.batches()
            found += batches
            tokens += sum(len(batch.ids) for batch in batches)
            self.has_more = self.has_more or channel.is_behind
            if tokens >= MAX_TURN_TOKENS:  # which the batch of one view may be as well
                self.has_more = True
                break
        return found

    def goes_on(self, delta: Delta) -> bool:
        """Whether a delta is more of the text that its choice was at: it ends nothing, and frees no other text."""
        if delta.kind is _OBJECT:
            return False
        if self._newest is not None and self._newest.key is delta.key:
            return True
        last = self._last.get(delta.key.choice)
        return last is not None and last.key == delta.key

    def finish(self, choice: int) -> Iterator[Delta]:
        """The texts of a choice have ended; yields what still waited for more."""
        for channel in self.of(choice):
            if (rest := channel.joiner.finish()) is not None:
                channel.feed(rest.text)
                yield rest
            channel.finish()

    def at(self, key: Key) -> Channel:
        """The one of a text that has come."""
        newest = self._newest
        return newest if newest is not None and newest.key is key else self.by_key[key]

    def of(self, choice: int) -> list[Channel]:
        return [channel for key, channel in self.by_key.items() if key.choice == choice]
