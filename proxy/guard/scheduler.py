"""Which streams run in the next step, and how many tokens of each. No torch, no clock, no threads.

A question (job) first waits for room: `_admit` gives its sequence a slot that holds all of it, so a
started job always finishes. Then every step takes the short jobs whole and one piece of the long ones,
in turns between owners. A sequence without a question keeps its slot until someone needs it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

from proxy.guard.cache import Change
from proxy.guard.commands import Outcome
from proxy.guard.metrics import Arrivals, Counters
from proxy.guard.prefixes import Prefixes
from proxy.guard.protocol import GuardError, GuardOverloaded
from proxy.guard.sequence import Chunk, Job, KeyValueCache, Sequence
from proxy.guard.turns import Turns


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a step, in tokens, and how long things may wait, in seconds."""

    piece: int = 512  # of long jobs, all together, in one step: what a short job may have to wait for
    short: int = 64  # up to this many tokens a job is taken whole
    step: int = 1024  # of short jobs in one step
    admission_seconds: float = 5.0  # an open without room is refused after it
    idle_seconds: float = 10.0  # a stream silent for this long gives its memory up for a new one


@dataclass(frozen=True, slots=True)
class Plan:
    changes: list[Change]  # to memory, in order, before anything is computed
    chunks: list[Chunk]


class Scheduler:
    def __init__(self, cache: KeyValueCache, limits: Limits) -> None:
        self.cache = cache
        self.limits = limits
        self.counters = Counters()
        self._feeds = Turns()  # wait for room; these streams were let in already
        self._opens = Turns()  # wait for room and may be refused
        self._running = Turns()
        # Silent sequences that hold a slot, the longest silent first.
        self._idle: OrderedDict[int, Sequence] = OrderedDict()
        self._prefixes = Prefixes()
        self._outcomes: list[Outcome] = []
        self.arrivals = Arrivals()  # of what was answered since someone took it

    @property
    def has_jobs(self) -> bool:
        return bool(self._running or self._feeds or self._opens or self._outcomes)

    @property
    def queue_depth(self) -> int:
        """Jobs without their outcome."""
        return len(self._running) + len(self._feeds) + len(self._opens)

    def submit(self, sequence: Sequence, job: Job) -> None:
        """Ask a sequence something. A question it still had is forgotten."""
        self.withdraw(sequence)
        sequence.job = job
        self._idle.pop(sequence.id, None)
        if sequence.computed >= job.end:
            self._finish(sequence, job, job.arrived)
        else:
            (self._opens if job.is_open else self._feeds).push(sequence)

    def withdraw(self, sequence: Sequence) -> None:
        """Forget the sequence's question, if any; what was computed of it stays."""
        if sequence.job is None:
            return
        sequence.job = None
        for queue in (self._running, self._feeds, self._opens):
            queue.remove(sequence)
        self._rest(sequence, sequence.used_at)

    def close(self, sequence: Sequence) -> None:
        self.withdraw(sequence)
        self._idle.pop(sequence.id, None)
        self._prefixes.remove(sequence)
        self.cache.drop(sequence)

    def fork(self, sequence: Sequence, child: Sequence) -> None:
        self.cache.share(sequence, child)
        self._rest(child, sequence.used_at)

    def plan(self, now: float) -> Plan:
        """The next step; without chunks when nothing can run."""
        self._refuse_late(now)
        # A stream that was let in goes before any new one; while one waits, room is not given away.
        if self._admit(self._feeds, now):
            self._admit(self._opens, now)
        chunks = self._choose()
        changes, self.cache.journal = self.cache.journal, []
        return Plan(changes, chunks)

    def commit(self, plan: Plan, answers: Ordered[bytes | GuardError], now: float) -> None:
        """Take over one answer a chunk: its rows, or why it has none."""
        for chunk, answer in zip(plan.chunks, answers, strict=True):
            sequence, job = chunk.sequence, chunk.job
            if isinstance(answer, GuardError):
                self.fail(sequence, answer)
                continue
            sequence.computed = chunk.start + chunk.count
            job.rows += answer
            # Who was in a crash stays alone to its end: its batch may not pay for it twice.
            job.is_alone = job.crashes > 0
            if sequence.computed >= job.end:
                self._running.remove(sequence)
                self._finish(sequence, job, now)

    def fail(self, sequence: Sequence, error: GuardError) -> None:
        """End the sequence's question with an error and trust nothing it left in memory."""
        if sequence.job is None:
            return
        self.counters.faults += 1
        self._outcomes.append(Outcome(sequence.job.ticket, error=error))
        self.withdraw(sequence)
        if sequence.slot is not None:
            for holder in self.cache.condemn(sequence.slot):
                self._idle.pop(holder.id, None)

    def isolate(self, plan: Plan, error: GuardError) -> None:
        """A step failed as a whole: its members run one by one; one that fails alone is the culprit."""
        for chunk in plan.chunks:
            if len(plan.chunks) == 1:
                self.fail(chunk.sequence, error)
            else:
                chunk.job.is_alone = True

    def restart(
        self, cache: KeyValueCache, sequences: Iterable[Sequence], plan: Plan | None, error: GuardError
    ) -> None:
        """All memory is lost. Questions are asked again; those of the step that crashed alone, and only once."""
        self.cache = cache
        self._idle.clear()
        crashed = {chunk.sequence.id for chunk in plan.chunks} if plan is not None else set()
        for sequence in sequences:
            sequence.computed, sequence.slot = 0, None
            job = sequence.job
            if job is None:
                continue
            self.withdraw(sequence)
            if sequence.id in crashed:
                job.crashes += 1
                job.is_alone = True
            if job.crashes > 1:
                self._outcomes.append(Outcome(job.ticket, error=error))
            else:
                job.rows.clear()
                self.submit(sequence, job)

    def outcomes(self) -> list[Outcome]:
        """What was answered since the last call."""
        done, self._outcomes = self._outcomes, []
        return done

    def _finish(self, sequence: Sequence, job: Job, now: float) -> None:
        sequence.job = None
        if job.is_first:
            self._prefixes.add(sequence)
        self._outcomes.append(Outcome(job.ticket, bytes(job.rows)))
        self.arrivals.add(job)
        self._rest(sequence, now)

    def _rest(self, sequence: Sequence, now: float) -> None:
        sequence.used_at = now
        self.cache.settle(sequence)
        if sequence.slot is not None:
            self._idle[sequence.id] = sequence
            self._idle.move_to_end(sequence.id)

    def _refuse_late(self, now: float) -> None:
        oldest = now - self.limits.admission_seconds
        for sequence in list(self._opens):
            if sequence.job is not None and sequence.job.arrived < oldest:
                self.counters.refusals += 1
                error = GuardOverloaded(f"no room in the key-value cache for {len(sequence.ids)} tokens")
                self._outcomes.append(Outcome(sequence.job.ticket, error=error))
                self.close(sequence)

    def _admit(self, waiting: Turns, now: float) -> bool:
        """Let jobs run while there is room. True when none is left waiting."""
        blocked: set[str] = set()
        for sequence in list(waiting):
            if sequence.owner in blocked:
                continue
            self._take_over(sequence)
            if self._make_room(sequence, now):
                waiting.remove(sequence)
                self._running.push(sequence)
                self.counters.started(sequence)
            elif waiting is self._opens:
                # An owner's later, smaller opens would fit, but then its big one never does. A feed, on the
                # other hand, mostly has its room already and need not wait for one that must grow.
                blocked.add(sequence.owner)
                # Who waits holds nothing: its share of another's memory would keep that from being freed.
                sequence.computed = 0
                self.cache.drop(sequence)
        return len(waiting) == 0

    def _take_over(self, sequence: Sequence) -> None:
        """Begin with what an open stream of the same owner has computed of the same tokens."""
        job = sequence.job
        if job is None or sequence.computed:
            return
        found = self._prefixes.find(sequence.owner, sequence.ids, job.reads[0] if job.reads else job.end)
        if found is not None and found[0].slot is not None:
            sequence.computed = found[1]
            self.cache.share(found[0], sequence)
            self.counters.shared_tokens += found[1]

    def _make_room(self, sequence: Sequence, now: float) -> bool:
        job = sequence.job
        assert job is not None
        silent_since = now - self.limits.idle_seconds if job.is_open else now
        while not self.cache.ensure(sequence, job.end):
            victim = self._victim(sequence, silent_since)
            if victim is None:
                return self._start_over(sequence, job)
            self._evict(victim)
        return True

    def _victim(self, sequence: Sequence, silent_since: float) -> Sequence | None:
        """Whose memory the sequence may have: the longest silent one's, else that of one which waits behind it."""
        victim = next(iter(self._idle.values()), None)
        if victim is not None and victim.used_at <= silent_since:
            return victim
        if self._running or sequence not in self._feeds:
            return None
        # Nothing runs, so nothing will be freed: the ones that wait may not hold each other up.
        return next((other for other in list(self._feeds)[:0:-1] if other is not sequence and other.slot), None)

    def _start_over(self, sequence: Sequence, job: Job) -> bool:
        """Growing needs the old slot and the new at once; without room for both, give up the old and replay."""
        if sequence.slot is None or self.cache.grows_in_place:
            return False
        self._evict(sequence)
        return self.cache.ensure(sequence, job.end)

    def _evict(self, sequence: Sequence) -> None:
        self._idle.pop(sequence.id, None)
        self.counters.evictions += 1
        self.counters.evicted_tokens += sequence.computed
        sequence.computed = 0
        self.cache.drop(sequence)

    def _choose(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        short_room, long_room = self.limits.step, self.limits.piece
        for sequence in self._running:
            job = sequence.job
            assert job is not None
            left = job.end - sequence.computed
            if job.is_alone:
                chunks = [_chunk(sequence, job, min(left, self.limits.piece))]
                break
            if left <= self.limits.short:
                count = left if left <= short_room else 0
                short_room -= count
            else:
                count = min(left, long_room)
                long_room -= count
            if count:
                chunks.append(_chunk(sequence, job, count))
        for chunk in chunks:
            self._running.send_back(chunk.sequence)
        return chunks


def _chunk(sequence: Sequence, job: Job, count: int) -> Chunk:
    start = sequence.computed
    reads = job.reads
    if not reads or reads[0] >= start + count:
        return Chunk(sequence, job, start, count, ())
    if reads[0] >= start and reads[-1] < start + count:
        return Chunk(sequence, job, start, count, reads)
    within = [position for position in reads if start <= position < start + count]
    return Chunk(sequence, job, start, count, within)
