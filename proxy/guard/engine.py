"""The engine: take commands, step (plan, run, commit), give outcomes. One thread owns it.

It knows no clock: `now` comes with every call, in seconds of any steady clock.
"""

from collections.abc import Sequence as Ordered
from dataclasses import dataclass

from proxy.guard.cache import Cache
from proxy.guard.commands import Cancel, Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.protocol import GuardError, GuardFault, GuardUnavailable
from proxy.guard.runner import Runner
from proxy.guard.scheduler import Limits, Plan, Scheduler
from proxy.guard.sequence import Job, Sequence


@dataclass(slots=True)
class Metrics:
    """What the engine has done so far, and what it holds now."""

    streams: int = 0
    queue_depth: int = 0
    kv_held_bytes: int = 0  # of slots that streams hold
    kv_slab_bytes: int = 0  # taken from the device
    kv_budget_bytes: int = 0
    steps: int = 0
    tokens: int = 0
    last_batch: int = 0  # streams in the last step
    evictions: int = 0
    evicted_tokens: int = 0
    shared_tokens: int = 0  # of prompts, that were not computed again
    refusals: int = 0
    faults: int = 0
    restarts: int = 0


class Engine:
    def __init__(self, runner: Runner, *, window: int, budget_bytes: int, limits: Limits | None = None) -> None:
        """`window` is the most tokens of one stream. Raises ValueError when the budget does not hold one such."""
        self.window = window
        self._runner = runner
        self._budget_bytes = budget_bytes
        self._sequences: dict[int, Sequence] = {}
        self._scheduler = Scheduler(self._new_cache(), limits or Limits())
        self._plan: Plan | None = None  # the step under way; still set after a crash
        self._is_blocked = False
        self._steps = self._tokens = self._last_batch = self._restarts = 0

    @property
    def is_blocked(self) -> bool:
        """True when the last step found work but could not run any of it."""
        return self._is_blocked

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_jobs

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
        self._plan = plan = self._scheduler.plan(now)
        self._runner.prepare(plan.changes)
        if plan.chunks:
            try:
                answers = self._runner.run(plan.chunks)
            except Exception as exc:
                self._scheduler.isolate(plan, GuardFault(f"the guard failed on this input: {type(exc).__name__}"))
            else:
                self._scheduler.commit(plan, answers, now)
                self._steps += 1
                self._last_batch = len(plan.chunks)
                self._tokens += sum(chunk.count for chunk in plan.chunks)
        self._plan = None
        self._is_blocked = not plan.chunks
        return self._scheduler.outcomes()

    def restart(self, error: GuardError) -> None:
        """After a crash: drop all memory, keep all streams, ask their questions again."""
        self._restarts += 1
        self._runner.reset()
        self._scheduler.restart(self._new_cache(), self._sequences.values(), self._plan, error)
        self._plan = None

    def metrics(self) -> Metrics:
        """Plain numbers; may be read from any thread."""
        scheduler = self._scheduler
        return Metrics(
            streams=len(self._sequences),
            queue_depth=scheduler.queue_depth,
            kv_held_bytes=scheduler.cache.held_tokens * scheduler.cache.bytes_per_token,
            kv_slab_bytes=scheduler.cache.used_bytes,
            kv_budget_bytes=self._budget_bytes,
            steps=self._steps,
            tokens=self._tokens,
            last_batch=self._last_batch,
            evictions=scheduler.counters.evictions,
            evicted_tokens=scheduler.counters.evicted_tokens,
            shared_tokens=scheduler.counters.shared_tokens,
            refusals=scheduler.counters.refusals,
            faults=scheduler.counters.faults,
            restarts=self._restarts,
        )

    def _new_cache(self) -> Cache:
        return Cache(
            bytes_per_token=self._runner.kv_bytes_per_token, budget_bytes=self._budget_bytes, window=self.window
        )

    def _open(self, command: Open, now: float) -> Outcome | None:
        sequence = Sequence(command.stream, command.owner, list(command.ids))
        self._sequences[command.stream] = sequence
        job = Job(command.ticket, len(command.ids), sorted(set(command.reads)), command.role, now, is_open=True)
        self._scheduler.submit(sequence, job)
        return None

    def _feed(self, command: Feed, now: float) -> Outcome | None:
        sequence = self._sequences.get(command.stream)
        if sequence is None or command.position > len(sequence.ids):
            return Outcome(command.ticket, error=GuardUnavailable("the engine does not know this stream"))
        self._scheduler.withdraw(sequence)
        sequence.truncate(command.position)
        sequence.ids += command.ids
        reads: Ordered[int] = range(command.position, len(sequence.ids))
        self._scheduler.submit(sequence, Job(command.ticket, len(sequence.ids), reads, command.role, now))
        return None

    def _fork(self, command: Fork, now: float) -> None:
        parent = self._sequences.get(command.stream)
        if parent is None:
            return  # the child's first feed reports it
        child = Sequence(command.child, parent.owner, parent.ids[: command.position])
        child.computed = min(parent.computed, command.position)
        child.used_at = now
        self._sequences[command.child] = child
        self._scheduler.fork(parent, child)
