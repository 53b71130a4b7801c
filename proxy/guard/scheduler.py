"""Which streams run in the next step, and how many tokens of each. No torch, no clock, no threads.

A question (job) first waits for room (see `admission`): a started job always finishes. Then every step takes
the short jobs whole and one piece of the long ones, in turns between owners. A sequence without a question
keeps its slot until someone needs it. What a step costs here does not grow with the streams that are not in it.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

from proxy.guard.admission import Admission
from proxy.guard.cache import Change
from proxy.guard.commands import Outcome
from proxy.guard.limits import Limits
from proxy.guard.metrics import Arrivals, Counters
from proxy.guard.protocol import GuardError, GuardOverloaded
from proxy.guard.sequence import Chunk, Job, KeyValueCache, Sequence
from proxy.guard.turns import Turns


@dataclass(frozen=True, slots=True)
class Plan:
    changes: list[Change]  # to memory, in order, before anything is computed
    chunks: list[Chunk]


class Scheduler:
    def __init__(self, cache: KeyValueCache, limits: Limits) -> None:
        self.limits = limits
        self.admission = Admission(cache, limits)
        self._short, self._long, self._alone = self._running = (Turns(), Turns(), Turns())
        self._is_alones_turn = True
        self._outcomes: list[Outcome] = []
        self.arrivals = Arrivals()  # of what was answered since someone took it

    @property
    def cache(self) -> KeyValueCache:
        return self.admission.cache

    @property
    def counters(self) -> Counters:
        return self.admission.counters

    @property
    def kept_tokens(self) -> int:
        """Of closed prompts, for their owner's next request."""
        return self.admission.kept.tokens

    @property
    def has_jobs(self) -> bool:
        return bool(self.queue_depth or self._outcomes)

    @property
    def queue_depth(self) -> int:
        """Jobs without their outcome."""
        return sum(map(len, self._running)) + len(self.admission)

    def submit(self, sequence: Sequence, job: Job) -> None:
        """Ask a sequence something. A question it still had is forgotten."""
        self.withdraw(sequence)
        sequence.job = job
        if sequence.computed >= job.end:
            self._finish(sequence, job, job.arrived)
        elif self.admission.ask(sequence, job):
            self._run(sequence)

    def withdraw(self, sequence: Sequence) -> None:
        """Forget the sequence's question, if any; what was computed of it stays."""
        if sequence.job is None:
            return
        sequence.job = None
        if not self._stop(sequence):
            self.admission.withdraw(sequence)
        self.admission.rest(sequence, sequence.used_at)

    def close(self, sequence: Sequence) -> None:
        self.withdraw(sequence)
        self.admission.close(sequence)

    def fork(self, sequence: Sequence, child: Sequence) -> None:
        self.admission.fork(sequence, child)

    def plan(self, now: float) -> Plan:
        """The next step; without chunks when nothing can run."""
        for sequence in self.admission.refuse(now):
            self._refuse(sequence)
        for sequence in self.admission.admit(now, self._long, is_running=any(self._running)):
            self._run(sequence)
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
            self._stop(sequence)
            if sequence.computed >= job.end:
                self._finish(sequence, job, now)
            else:
                self._run(sequence)

    def fail(self, sequence: Sequence, error: GuardError) -> None:
        """End the sequence's question with an error and trust nothing it left in memory."""
        if sequence.job is None:
            return
        self.counters.faults += 1
        self._outcomes.append(Outcome(sequence.job.ticket, error=error))
        self.withdraw(sequence)
        if sequence.slot is not None:
            self.admission.condemn(sequence.slot)

    def isolate(self, plan: Plan, error: GuardError) -> None:
        """A step failed as a whole: its members run one by one; one that fails alone is the culprit."""
        for chunk in plan.chunks:
            if len(plan.chunks) == 1:
                self.fail(chunk.sequence, error)
            else:
                chunk.job.is_alone = True
                self._stop(chunk.sequence)
                self._run(chunk.sequence)

    def restart(
        self, cache: KeyValueCache, sequences: Iterable[Sequence], plan: Plan | None, error: GuardError
    ) -> None:
        """All memory is lost. Questions are asked again; those of the step that crashed alone, and only once."""
        self.admission.reset(cache)
        crashed = {chunk.sequence.id for chunk in plan.chunks} if plan is not None else set()
        asked = []
        for sequence in sequences:
            sequence.computed, sequence.slot = 0, None
            if sequence.job is not None:
                asked.append((sequence, sequence.job))
        for sequence, job in sorted(asked, key=lambda pair: pair[1].arrived):
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
            self.admission.prefixes.add(sequence)
        self._outcomes.append(Outcome(job.ticket, bytes(job.rows)))
        self.arrivals.add(job)
        self.admission.rest(sequence, now)

    def _refuse(self, sequence: Sequence) -> None:
        assert sequence.job is not None
        error = GuardOverloaded(f"no room in the key-value cache for {len(sequence.ids)} tokens")
        self._outcomes.append(Outcome(sequence.job.ticket, error=error))
        self.close(sequence)

    def _run(self, sequence: Sequence) -> None:
        job = sequence.job
        assert job is not None
        self.counters.started(sequence)
        if job.is_alone:
            self._alone.push(sequence)
        elif job.end - sequence.computed <= self.limits.short:
            self._short.push(sequence)
        else:
            self._long.push(sequence)

    def _stop(self, sequence: Sequence) -> bool:
        return any(queue.remove(sequence) for queue in self._running)

    def _choose(self) -> list[Chunk]:
        # Who must be alone may not have every step, or one long job would hold up everybody.
        alone = self._alone.first
        if alone is not None and (self._is_alones_turn or not (self._short or self._long)):
            self._is_alones_turn = False
            assert alone.job is not None
            self._alone.send_back(alone)
            return [_chunk(alone, alone.job, min(alone.job.end - alone.computed, self.limits.piece))]
        self._is_alones_turn = True
        return [
            *self._serve(self._short, self.limits.step, take_whole=True),
            *self._serve(self._long, self.limits.piece, take_whole=False),
        ]

    def _serve(self, queue: Turns, room: int, *, take_whole: bool) -> list[Chunk]:
        """Chunks of the queue's jobs in turns, `room` tokens in all. Whoever is served goes to the back."""
        chunks = []
        for sequence in queue:
            job = sequence.job
            assert job is not None
            left = job.end - sequence.computed
            if not room or (take_whole and left > room):
                break
            count = min(left, room)
            room -= count
            chunks.append(_chunk(sequence, job, count))
        for chunk in chunks:
            queue.send_back(chunk.sequence)
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
