"""Who gets memory for a question, and from whom. No torch, no clock, no threads.

A question waits here until its sequence has a slot that holds all of it, so one that runs always finishes.
A stream that was let in goes before new ones; memory comes from closed prompts that are only kept, then from
silent streams, and where nothing runs from streams that wait themselves. All that is taken can be replayed.
"""

from collections import Counter, OrderedDict
from collections.abc import Generator, Iterator
from typing import Any

from proxy.guard.kept import Kept
from proxy.guard.limits import Limits
from proxy.guard.metrics import Counters
from proxy.guard.prefixes import Prefixes
from proxy.guard.sequence import Job, KeyValueCache, Sequence
from proxy.guard.turns import Turns

# New streams that one step lets in, and owners whose new streams it tries in vain: a step is on everyone's path.
OPENS_A_STEP = 64
TRIES_A_STEP = 8
# How long a count of everyone's memory is good for.
SHARES_SECONDS = 0.1


class Admission:
    def __init__(self, cache: KeyValueCache, limits: Limits) -> None:
        self.cache = cache
        self.counters = Counters()
        self.prefixes = Prefixes()
        self.kept = Kept(limits)
        self._limits = limits
        self.opens = Turns()  # new streams, which may be refused
        self._growing = Turns()  # streams that were let in and need more room than they have
        self._feeds = Turns()  # streams that need nothing more, but wait while one of those has waited too long
        # Silent sequences that hold a slot, the longest silent first.
        self._idle: OrderedDict[int, Sequence] = OrderedDict()
        self._holders: dict[int, Sequence] = {}  # all that got a slot; some have lost it since
        self._stalled_since: float | None = None  # when the next one to grow first found no room
        self._is_stalled = False
        self._shares: tuple[float, Counter[str]] = (float("-inf"), Counter())
        self._now = 0.0

    def __len__(self) -> int:
        """Questions that wait."""
        return len(self._feeds) + len(self._growing) + len(self.opens)

    def ask(self, sequence: Sequence, job: Job) -> bool:
        """The sequence has a question. True when it may run at once; else it waits until `admit` gives it out."""
        self._idle.pop(sequence.id, None)
        if job.is_open:
            self.opens.push(sequence)
        elif not self.cache.fits(sequence, job.end):
            self._growing.push(sequence)
        elif self._is_stalled:
            self._feeds.push(sequence)
        else:
            return self.cache.ensure(sequence, job.end)
        return False

    def withdraw(self, sequence: Sequence) -> None:
        """The sequence has no question any more."""
        for queue in (self._growing, self.opens, self._feeds):
            if queue.remove(sequence):
                break

    def rest(self, sequence: Sequence, now: float) -> None:
        """It has no question: its slot is there for whoever needs it."""
        sequence.used_at = now
        self.cache.settle(sequence)
        if sequence.slot is not None:
            self._idle[sequence.id] = sequence
            self._idle.move_to_end(sequence.id)

    def fork(self, sequence: Sequence, child: Sequence) -> None:
        self.cache.share(sequence, child)
        self._holders[child.id] = child
        self.rest(child, sequence.used_at)

    def close(self, sequence: Sequence) -> None:
        self._idle.pop(sequence.id, None)
        is_kept = sequence in self.prefixes and self.kept.is_worth(sequence)
        self.prefixes.remove(sequence)
        self._holders.pop(sequence.id, None)
        if is_kept:
            self.kept.add(sequence, self._now)
            self.prefixes.add(sequence)
            self._trim(self._now)
        else:
            self.cache.drop(sequence)

    def reset(self, cache: KeyValueCache) -> None:
        """All memory is lost: this is the new one."""
        for sequence in list(self.kept):
            self.kept.remove(sequence)
            self.prefixes.remove(sequence)
            sequence.computed, sequence.slot = 0, None
        self.cache = cache
        self._idle.clear()
        self._holders.clear()

    def condemn(self, slot: Any) -> None:
        """Nothing in the slot can be trusted, whoever holds it."""
        for holder in list(slot.holders):
            assert isinstance(holder, Sequence)
            self._idle.pop(holder.id, None)
            self._forget(holder)
        self.cache.condemn(slot)

    def refuse(self, now: float) -> list[Sequence]:
        """New streams that have waited too long, taken out of the queue."""
        late = []
        oldest = now - self._limits.admission_seconds
        while (sequence := self.opens.oldest) is not None and sequence.job is not None:
            if sequence.job.arrived >= oldest:
                break
            self.opens.remove(sequence)
            self.counters.refusals += 1
            late.append(sequence)
        return late

    def admit(self, now: float, long: Turns, *, is_running: bool) -> Iterator[Sequence]:
        """Sequences that have the room for their question now, each to be run before the next is asked for.

        `long` are the long jobs that run; `is_running`: any do, so that room will be freed.
        """
        self._now = now
        self._trim(now)
        since = self._stalled_since
        is_stalled = since is not None and now - since > self._limits.stall_seconds
        if (yield from self._grow(now, long, may_take_all=is_stalled or not is_running)):
            is_stalled = False
            yield from self._admit_feeds()
            if not self._growing:
                yield from self._admit_opens(now, long)
        # While it lasts nobody else's question runs: who needs nothing more never gives its room to who does.
        self._is_stalled = is_stalled

    def _admit_feeds(self) -> Iterator[Sequence]:
        while (sequence := self._feeds.first) is not None and sequence.job is not None:
            self._feeds.remove(sequence)
            if self.cache.fits(sequence, sequence.job.end):
                self.cache.ensure(sequence, sequence.job.end)
                yield sequence
            else:
                self._growing.push(sequence)

    def _grow(self, now: float, long: Turns, *, may_take_all: bool) -> Generator[Sequence, None, bool]:
        """Find room for the streams that have outgrown theirs, in turns. Its value is False when room is used up."""
        for _ in range(self._limits.step):
            sequence = self._growing.first
            if sequence is None:
                break
            if self._is_crowd(sequence, long):
                self._growing.pass_on(sequence.owner)
                continue
            self._take_over(sequence)  # a replay may find its prompt with another
            if not self._make_room(sequence, now, may_take_all=may_take_all):
                self._let_go(sequence)
                # Nobody else that must grow goes before it, or it never would.
                self._stalled_since = now if self._stalled_since is None else self._stalled_since
                return False
            self._growing.remove(sequence)
            self._growing.pass_on(sequence.owner)
            self._stalled_since, may_take_all = None, False
            yield sequence
        self._stalled_since = None
        return True

    def _admit_opens(self, now: float, long: Turns) -> Iterator[Sequence]:
        tries = TRIES_A_STEP
        blocked: set[str] = set()
        for _ in range(OPENS_A_STEP):
            sequence = self.opens.first
            # An owner's later, smaller opens would fit, but then its big one never does.
            if sequence is None or sequence.owner in blocked or not tries:
                break
            self.opens.pass_on(sequence.owner)
            if self._is_crowd(sequence, long):
                blocked.add(sequence.owner)
                continue
            outgrown = self._take_over(sequence)
            if self._make_room(sequence, now - self._limits.idle_seconds):
                self.opens.remove(sequence)
                if outgrown is not None:
                    self._forget(outgrown)
                yield sequence
            else:
                tries -= 1
                blocked.add(sequence.owner)
                self._wait_longer(sequence, now)

    def _is_crowd(self, sequence: Sequence, long: Turns) -> bool:
        """Would it only wait, with its memory, behind long jobs of its owner that fill the steps already?"""
        job = sequence.job
        assert job is not None
        if job.end - sequence.computed <= self._limits.short or not long.has(sequence.owner):
            return False
        return len(long) * self._limits.short >= self._limits.piece

    def _wait_longer(self, sequence: Sequence, now: float) -> None:
        self._let_go(sequence)
        job = sequence.job
        assert job is not None
        if now - job.arrived >= self._limits.fair_seconds and self._is_below_share(sequence, job, now):
            self.opens.remove(sequence)
            self._growing.push(sequence)

    def _let_go(self, sequence: Sequence) -> None:
        # Who waits for more than it has holds nothing: its share of another's memory would keep that from being freed.
        sequence.computed = 0
        self.cache.drop(sequence)

    def _is_below_share(self, sequence: Sequence, job: Job, now: float) -> bool:
        """Would the owner, with this question, still hold no more than an equal part of what all hold?"""
        counted_at, held = self._shares
        if now - counted_at > SHARES_SECONDS:
            self._holders = {holder.id: holder for holder in self._holders.values() if holder.slot is not None}
            held = Counter()
            for holder in self._holders.values():
                held[holder.owner] += holder.computed
            self._shares = (now, held)
        owners = len(held.keys() | {sequence.owner})
        return (held[sequence.owner] + job.end) * owners <= held.total()

    def _take_over(self, sequence: Sequence) -> Sequence | None:
        """Begin with what a stream of the same owner has computed of the same tokens; it, if that is all it has."""
        job = sequence.job
        assert job is not None
        if sequence.computed:
            return None
        # At least one token is left to compute, or there would be no step to answer from.
        limit = job.reads[0] if job.reads else job.end - 1
        found = self.prefixes.find(sequence.owner, sequence.ids, limit)
        if found is None or found[0].slot is None:
            return None
        other, sequence.computed = found
        self.cache.share(other, sequence)
        self.counters.shared_tokens += sequence.computed
        if other in self.kept:
            self.kept.touch(other, self._now)
        return other if other.computed == sequence.computed else None

    def _make_room(self, sequence: Sequence, silent_since: float, *, may_take_all: bool = False) -> bool:
        job = sequence.job
        assert job is not None
        self._holders[sequence.id] = sequence
        victims = self._victims(sequence, silent_since, may_take_all=may_take_all)
        while not self.cache.ensure(sequence, job.end):
            victim = next(victims, None)
            if victim is None:
                return self._start_over(sequence, job)
            self._evict(victim)
        return True

    def _victims(self, sequence: Sequence, silent_since: float, *, may_take_all: bool) -> Iterator[Sequence]:
        """Whose memory the sequence may have. Each is evicted before the next is asked for."""
        while (kept := self.kept.oldest) is not None:
            yield kept
        while self._idle and (victim := next(iter(self._idle.values()))).used_at <= silent_since:
            yield victim
        if may_take_all:
            # The ones that wait may not hold each other up; all of them are replayed in their turn.
            waiting = [*reversed(self._growing), *reversed(self._feeds)]
            yield from (other for other in waiting if other is not sequence and other.slot is not None)

    def _start_over(self, sequence: Sequence, job: Job) -> bool:
        """Growing needs the old slot and the new at once; without room for both, give up the old and replay."""
        if sequence.slot is None or job.is_open or self.cache.grows_in_place:
            return False
        self._evict(sequence)
        return self.cache.ensure(sequence, job.end)

    def _evict(self, sequence: Sequence) -> None:
        if self._forget(sequence):
            return
        self._idle.pop(sequence.id, None)
        self.counters.evictions += 1
        self.counters.evicted_tokens += sequence.computed
        sequence.computed = 0
        self.cache.drop(sequence)

    def _trim(self, now: float) -> None:
        while (sequence := self.kept.surplus(now)) is not None:
            self._forget(sequence)

    def _forget(self, sequence: Sequence) -> bool:
        """Let go of a closed sequence; False for one that is not."""
        if not self.kept.remove(sequence):
            return False
        self.prefixes.remove(sequence)
        self.cache.drop(sequence)
        return True
