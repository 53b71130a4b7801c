"""The engine: take commands, step (plan, run, commit), give outcomes. One thread owns it.

It asks no clock for the time: `now` comes with every call, in seconds of any steady clock. It only
measures how long its own steps take.
"""

import time
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import asdict

from proxy.guard.cache import OutOfMemory
from proxy.guard.commands import Cancel, Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.devices import AnyRunner
from proxy.guard.limits import Limits
from proxy.guard.metrics import Arrivals, Metrics, StepRecorder
from proxy.guard.protocol import (
    GuardError,
    GuardFault,
    GuardOutOfMemory,
    GuardOverloaded,
    GuardUnavailable,
    UnknownStream,
)
from proxy.guard.scheduler import Plan, Scheduler
from proxy.guard.sequence import Job, KeyValueCache, Sequence


class Engine:
    def __init__(self, runner: AnyRunner, *, window: int, budget_bytes: int, limits: Limits | None = None) -> None:
        """`window` is the most tokens of one stream. Raises ValueError when the budget does not hold one such."""
        self.window = window
        self._runner = runner
        self._budget_bytes = budget_bytes
        self._sequences: dict[int, Sequence] = {}
        self._scheduler = Scheduler(self._new_cache(), limits or Limits())
        self._plan: Plan | None = None  # the step under way; still set after a crash
        self._is_blocked = False
        # Called with every plan that is about to run, and with None once it has: what a crash is put down to.
        self.on_plan: Callable[[Plan | None], None] | None = None
        self._record = StepRecorder()
        self._restarts = 0

    @property
    def is_blocked(self) -> bool:
        """True when the last step found work but could not run any of it."""
        return self._is_blocked

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_jobs

    @property
    def steps(self) -> int:
        """Steps that have come to their end."""
        return self._record.steps

    def apply(self, command: Command, now: float) -> Outcome | None:
        """Take one command; an outcome comes at once only for a question that cannot be asked."""
        match command:
            case Open():
                return self._open(command, now)
            case Feed():
                return self._feed(command, now)
            case Fork():
                self._fork(command, now)
            case Cancel(stream=stream, ticket=ticket):
                sequence = self._sequences.get(stream)
                if sequence is not None and sequence.job is not None and sequence.job.ticket == ticket:
                    self._scheduler.withdraw(sequence)
            case Close(stream=stream):
                sequence = self._sequences.pop(stream, None)
                if sequence is not None:
                    self._scheduler.close(sequence)
        return None

    def step(self, now: float) -> list[Outcome]:
        """Run one batch. What a batch raises is put down to its culprit; any other error is a crash."""
        started, queue = time.perf_counter(), self._scheduler.queue_depth
        self._plan = plan = self._scheduler.plan(now)
        if self.on_plan is not None:
            self.on_plan(plan)
        try:
            self._runner.prepare(plan.changes)
        except OutOfMemory as exc:
            return self._shrink(exc)
        if plan.chunks:
            answers = self._run(plan)
            if answers is not None:
                self._scheduler.commit(plan, answers, now)
                self._record.step(plan.chunks, queue, time.perf_counter() - started)
        self._plan = None
        if self.on_plan is not None:
            self.on_plan(None)
        self._is_blocked = not plan.chunks
        arrivals, self._scheduler.arrivals = self._scheduler.arrivals, Arrivals()
        self._record.answers(arrivals, now + time.perf_counter() - started)
        return self._scheduler.outcomes()

    def _run(self, plan: Plan) -> list[bytes | GuardError] | None:
        """None where the step failed as a whole."""
        try:
            return self._runner.run(plan.chunks)
        except GuardOutOfMemory as exc:
            self._scheduler.isolate(plan, exc)
        except GuardUnavailable:
            raise  # the device is lost: no stream of the step is to blame
        except Exception as exc:
            self._scheduler.isolate(plan, GuardFault(f"the guard failed on this input: {type(exc).__name__}"))
        return None

    def _shrink(self, error: OutOfMemory) -> list[Outcome]:
        """The device holds less than the budget: go on with what it gave. All streams stay; new ones wait for room."""
        budget = self._runner.held_bytes
        if budget < self.window * self._runner.kv_bytes_per_token:
            raise error
        self._budget_bytes = budget
        # Nobody is to blame, so this is no crash of the step's streams.
        self._plan = None
        self.restart(GuardOverloaded(str(error)))
        return self._scheduler.outcomes()

    def restart(self, error: GuardError) -> None:
        """After a crash: drop all memory, keep all streams, ask their questions again."""
        self._restarts += 1
        self._runner.reset()
        self._scheduler.restart(self._new_cache(), self._sequences.values(), self._plan, error)
        self._plan = None

    def metrics(self) -> Metrics:
        """May be called from any thread, at any time; a step does not notice."""
        scheduler = self._scheduler
        return Metrics(
            streams=len(self._sequences),
            queue_depth=scheduler.queue_depth,
            kv_held_bytes=scheduler.cache.held_tokens * scheduler.cache.bytes_per_token,
            kv_slab_bytes=scheduler.cache.used_bytes,
            kv_budget_bytes=self._budget_bytes,
            kept_tokens=scheduler.kept_tokens,
            **asdict(scheduler.counters),
            restarts=self._restarts,
            **self._record.values(),
        )

    def _new_cache(self) -> KeyValueCache:
        return self._runner.new_cache(self._budget_bytes, self.window)

    def _open(self, command: Open, now: float) -> Outcome | None:
        if fault := self._fault_of(command.ids, 0, command.reads):
            return Outcome(command.ticket, error=GuardFault(fault))
        if command.stream in self._sequences:
            self.apply(Close(command.stream), now)
        sequence = Sequence(command.stream, command.owner, list(command.ids))
        self._sequences[command.stream] = sequence
        reads = sorted(set(command.reads))
        job = Job(command.ticket, len(command.ids), reads, command.role, now, not command.is_replay, is_first=True)
        if command.is_alone:
            job.is_alone, job.crashes = True, 1
        self._scheduler.submit(sequence, job)
        return None

    def _feed(self, command: Feed, now: float) -> Outcome | None:
        sequence = self._sequences.get(command.stream)
        if sequence is None or command.position > len(sequence.ids):
            return Outcome(command.ticket, error=UnknownStream("the engine does not know this stream"))
        if fault := self._fault_of(command.ids, command.position, ()):
            return Outcome(command.ticket, error=GuardFault(fault))
        self._scheduler.withdraw(sequence)
        sequence.truncate(command.position)
        sequence.ids += command.ids
        reads: Ordered[int] = range(command.position, len(sequence.ids))
        self._scheduler.submit(sequence, Job(command.ticket, len(sequence.ids), reads, command.role, now))
        return None

    def _fault_of(self, ids: list[int], position: int, reads: Ordered[int]) -> str | None:
        """What is wrong with a question. Doors check too; but on a GPU an id out of range is the end of the engine."""
        if position < 0 or position + len(ids) > self.window:
            return f"{position + len(ids)} tokens; the guard's window holds {self.window}"
        if ids and not 0 <= min(ids) <= max(ids) < self._runner.vocabulary:
            return f"token ids must be within 0 ... {self._runner.vocabulary - 1}"
        if reads and not 0 <= min(reads) <= max(reads) < len(ids):
            return f"verdicts asked outside of {len(ids)} tokens"
        return None

    def _fork(self, command: Fork, now: float) -> None:
        parent = self._sequences.get(command.stream)
        if parent is None:
            return  # the child's first feed reports it
        if command.child in self._sequences:
            self.apply(Close(command.child), now)
        child = Sequence(command.child, parent.owner, parent.ids[: command.position])
        child.computed = min(parent.computed, command.position)
        child.used_at = now
        self._sequences[command.child] = child
        self._scheduler.fork(parent, child)
