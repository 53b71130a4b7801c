"""A scheduler without a model: memory that holds token ids, and a clock that tests move."""

from collections.abc import Iterable

from proxy.guard.cache import Cache, Change, Copy, Grow, Move, Retire, Scrub
from proxy.guard.commands import Outcome
from proxy.guard.limits import Limits
from proxy.guard.pages import PAGE_TOKENS, PageCache
from proxy.guard.protocol import GuardError
from proxy.guard.rows import write_rows
from proxy.guard.scheduler import Plan, Scheduler
from proxy.guard.sequence import Chunk, Job, KeyValueCache, Sequence
from proxy.risk import Role

LIMITS = Limits(piece=64, short=8, step=32, admission_seconds=5.0, idle_seconds=2.0)
SAFE = write_rows([[1.0, 0.0, 0.0, 1.0, *[0.0] * 7]], Role.ASSISTANT)


class Memory:
    """A runner without a model: slots hold token ids, and every step checks that a stream's past is its own."""

    def __init__(self) -> None:
        self.slabs: dict[int, list[list[int]]] = {}

    def run(self, plan: Plan) -> list[bytes | GuardError]:
        for change in plan.changes:
            self._change(change)
        written = set()
        for chunk in plan.chunks:
            slot = chunk.sequence.slot
            assert slot is not None
            assert (slot.slab, slot.index) not in written, "two streams write to one slot in one step"
            written.add((slot.slab, slot.index))
            tokens = self.slabs[slot.slab][slot.index]
            assert tokens[: chunk.start] == chunk.sequence.ids[: chunk.start], "not this stream's past"
            assert chunk.start + chunk.count <= slot.capacity
            tokens[chunk.start :] = chunk.sequence.ids[chunk.start : chunk.start + chunk.count]
        return [SAFE * len(chunk.reads) for chunk in plan.chunks]

    def _change(self, change: Change) -> None:
        match change:
            case Grow(slab, slots, _):
                assert slab not in self.slabs
                self.slabs[slab] = [[] for _ in range(slots)]
            case Retire(slab):
                del self.slabs[slab]
            case Scrub(slab, index):
                self.slabs[slab][index] = []
            case Move((source, i), (target, j), length):
                self.slabs[target][j] = self.slabs[source][i][:length]


class PagedMemory:
    """The same with pages: each holds what was written to it, by place."""

    def __init__(self) -> None:
        self.pages: dict[int, dict[int, int]] = {}

    def run(self, plan: Plan) -> list[bytes | GuardError]:
        for change in plan.changes:
            assert isinstance(change, Copy)
            copied = {place: self.pages[change.source][place] for place in range(change.length)}
            self.pages[change.target] = copied
        written: set[int] = set()
        for chunk in plan.chunks:
            self._write(chunk, written)
        return [SAFE * len(chunk.reads) for chunk in plan.chunks]

    def _write(self, chunk: Chunk, written: set[int]) -> None:
        pages, ids = chunk.sequence.slot.pages, chunk.sequence.ids
        past = [self.pages[pages[at // PAGE_TOKENS]][at % PAGE_TOKENS] for at in range(chunk.start)]
        assert past == ids[: chunk.start], "not this stream's past"
        places = range(chunk.start, chunk.start + chunk.count)
        touched = {pages[at // PAGE_TOKENS] for at in places}
        assert not touched & written, "two streams write to one page in one step"
        written |= touched
        for at in places:
            self.pages.setdefault(pages[at // PAGE_TOKENS], {})[at % PAGE_TOKENS] = ids[at]


class World:
    """A scheduler with its memory, its streams and a clock that moves a millisecond a step."""

    def __init__(
        self, budget_tokens: int = 4096, window: int = 512, limits: Limits = LIMITS, *, paged: bool = False
    ) -> None:
        self.paged = paged
        self.scheduler = Scheduler(self.new_cache(budget_tokens, window), limits)
        self.memory = self.new_memory()
        self.sequences: dict[int, Sequence] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.now = 100.0
        self.plans: list[Plan] = []
        self._tickets = 0
        self._ids = 0

    def new_memory(self) -> Memory | PagedMemory:
        return PagedMemory() if self.paged else Memory()

    def new_cache(self, budget_tokens: int, window: int) -> KeyValueCache:
        kind = PageCache if self.paged else Cache
        return kind(bytes_per_token=1, budget_bytes=budget_tokens, window=window)

    def fresh(self, count: int) -> range:
        """Token ids that were never used, so that no stream can pass for another."""
        self._ids += count
        return range(self._ids - count, self._ids)

    def open(self, ids: Iterable[int], owner: str = "") -> Sequence:
        sequence = Sequence(len(self.sequences), owner, list(ids))
        self.sequences[sequence.id] = sequence
        self._ask(sequence, 0, is_open=True)
        return sequence

    def feed(self, sequence: Sequence, ids: Iterable[int], position: int | None = None) -> int:
        self.scheduler.withdraw(sequence)
        start = len(sequence.ids) if position is None else position
        sequence.truncate(start)
        sequence.ids += ids
        return self._ask(sequence, start, is_open=False)

    def fork(self, sequence: Sequence) -> Sequence:
        child = Sequence(len(self.sequences), sequence.owner, list(sequence.ids), sequence.computed)
        self.sequences[child.id] = child
        self.scheduler.fork(sequence, child)
        return child

    def close(self, sequence: Sequence) -> None:
        self.scheduler.close(sequence)

    def step(self) -> Plan:
        plan = self.scheduler.plan(self.now)
        self.plans.append(plan)
        self.scheduler.commit(plan, self.memory.run(plan), self.now)
        self.collect()
        self.now += 0.001
        return plan

    def collect(self) -> None:
        for outcome in self.scheduler.outcomes():
            assert outcome.ticket not in self.outcomes, "one question, two answers"
            self.outcomes[outcome.ticket] = outcome

    def run(self, limit: int = 10_000) -> None:
        while self.scheduler.has_jobs:
            self.step()
            limit -= 1
            assert limit, "the scheduler does not come to an end"

    def _ask(self, sequence: Sequence, start: int, *, is_open: bool) -> int:
        self._tickets += 1
        # A prompt is read at its end only, so that its beginning may be another's.
        reads = range(max(start, len(sequence.ids) - 1) if is_open else start, len(sequence.ids))
        job = Job(self._tickets, len(sequence.ids), reads, Role.ASSISTANT, self.now, is_open=is_open, is_first=is_open)
        self.scheduler.submit(sequence, job)
        return self._tickets
