"""Minutes of traffic for the scheduler, without a model: arrivals, answers, forks, crashes, and what must hold.

A client asks one thing at a time, as the proxy does: open, fork, feed, feed, ..., close. A step takes simulated
time, so questions pile up while it runs.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from proxy.guard.limits import Limits
from proxy.guard.protocol import GuardFault, GuardOverloaded, GuardUnavailable
from proxy.guard.scheduler import Plan
from proxy.guard.sequence import Sequence
from tests.guard.world import Memory, World

CHECK_STEPS = 25  # the whole memory is checked every so many steps, what a step touches always


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is offered. Rates are per second and owner; sizes are tokens."""

    seconds: float
    budget: int
    window: int = 32_768
    owners: dict[str, float] = field(default_factory=lambda: {"a": 0.5, "b": 0.5, "c": 1.0})
    hog: int = 0  # streams that one owner opens at the very start
    giants: float = 0.0  # prompts of 30,000 tokens a second
    answer: int = 60  # tokens of an answer, on average
    pause: float = 0.02  # between a verdict and the next tokens
    restarts: float = 0.0  # a second
    faults: float = 0.0  # a chunk
    leaves: float = 0.0005  # of the clients that wait, in every step
    kept: int = 0


@dataclass(eq=False, slots=True)
class Client:
    owner: str
    left: int  # tokens still to feed
    sequence: Sequence
    parent: Sequence | None = None
    prompt: int = 0  # tokens
    ticket: int = 0
    asked_at: float = 0.0
    asked_step: int = 0
    is_open: bool = True


class Simulation(World):
    def __init__(self, traffic: Traffic, seed: int, limits: Limits | None = None) -> None:
        limits = replace(limits or Limits(), kept_tokens=traffic.kept)
        super().__init__(traffic.budget, traffic.window, limits)
        self.traffic, self.limits = traffic, limits
        self.dice = random.Random(seed)
        self.steps = 0
        self.asking: dict[int, Client] = {}  # by ticket
        self.pausing: list[tuple[float, int, Client]] = []
        self.opened: dict[int, Sequence] = {}
        self.waits: dict[str, list[int]] = defaultdict(list)  # steps a feed waited, by owner
        self.open_seconds: dict[str, list[float]] = defaultdict(list)
        self.finished = self.refused = self.faulty = self.restarts = 0
        self._system = {owner: list(self.fresh(300)) for owner in (*traffic.owners, "hog")}
        self._arrivals = sorted(self._arrive())
        self._clients = 0

    def _arrive(self) -> Iterator[tuple[float, str, int]]:
        for owner, rate in self.traffic.owners.items():
            at = self.now + self.dice.expovariate(rate)
            while at < self.now + self.traffic.seconds:
                yield at, owner, int(min(3000, self.dice.lognormvariate(5, 1)))
                at += self.dice.expovariate(rate)
        yield from ((self.now, "hog", 20 + self.dice.randrange(200)) for _ in range(self.traffic.hog))
        if self.traffic.giants:
            at = self.now
            while (at := at + self.dice.expovariate(self.traffic.giants)) < self.now + self.traffic.seconds:
                yield at, "giant", 30_000

    def offer(self, streams: int, *, tokens: int, answer: int) -> None:
        """So many streams of one owner, all at once, with answers of one length."""
        for _ in range(streams):
            self._asks(Client("hog", answer, self.open_sequence(list(self.fresh(tokens)), "hog")), self._tickets)

    def simulate(self) -> None:
        """Offer the traffic, then let everything that was let in finish."""
        while self._arrivals or self.asking or self.pausing:
            self._offer()
            if self.dice.random() < self.traffic.restarts * 0.01:
                self._crash()
            plan = self._turn()
            self._check_step(plan)
            if self.steps % CHECK_STEPS == 0:
                self.check()
            tokens = sum(chunk.count for chunk in plan.chunks)
            self.now += 0.004 + tokens * 1e-5 if plan.chunks else 0.01
            self._settle()
        self.check()
        assert not self.opened
        assert self.scheduler.queue_depth == 0
        assert self.scheduler.cache.held_tokens == 0 or self.traffic.kept
        assert self.scheduler.kept_tokens <= self.traffic.kept

    def check(self) -> None:
        """The whole memory: every place is one slot's, the counts are right, the budget is kept."""
        cache = self.scheduler.cache
        assert cache.used_bytes <= cache.budget_bytes
        slots = {id(s.slot): s.slot for s in self.sequences.values() if s.slot is not None}
        assert len({(slot.slab, slot.index) for slot in slots.values()}) == len(slots), "one place, two slots"
        assert sum(slot.capacity for slot in slots.values()) == cache.held_tokens
        for sequence in self.opened.values():
            assert sequence.slot is not None or sequence.computed == 0
            assert sequence.slot is None or sequence.computed <= sequence.slot.capacity
        self.sequences = {s.id: s for s in self.sequences.values() if s.id in self.opened or s.slot is not None}

    def open_of(self, owner: str, size: int) -> Sequence:
        begin = self._system.get(owner, []) if self.dice.random() < 0.5 else []
        return self.open_sequence([*begin, *self.fresh(size)], owner)

    def open_sequence(self, ids: list[int], owner: str) -> Sequence:
        self._clients += 1
        sequence = Sequence(self._clients, owner, ids)
        self.sequences[sequence.id] = self.opened[sequence.id] = sequence
        self._ask(sequence, 0, is_open=True)
        return sequence

    def _offer(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.now:
            _, owner, size = self._arrivals.pop(0)
            client = Client(owner, 1 + int(self.dice.expovariate(1 / self.traffic.answer)), self.open_of(owner, size))
            self._asks(client, self._tickets)
        self.pausing.sort(key=lambda entry: entry[:2])
        while self.pausing and self.pausing[0][0] <= self.now:
            self._go_on(self.pausing.pop(0)[2])
        for client in [c for c in self.asking.values() if self.dice.random() < self.traffic.leaves]:
            self._give_up(client)

    def _go_on(self, client: Client) -> None:
        sequence = client.sequence
        if client.left <= 0 or len(sequence.ids) + 8 > self.traffic.window:
            self.finished += 1
            self._leave(client)
            return
        count = min(client.left, self.dice.choice([1, 1, 1, 2, 4, 8]))
        back = self.dice.choice([0] * 9 + [3])
        client.left -= count
        position = max(client.prompt, len(sequence.ids) - back)  # never into the prompt, as in the proxy
        self._asks(client, self.feed(sequence, self.fresh(count), position))

    def _asks(self, client: Client, ticket: int) -> None:
        client.ticket, client.asked_at, client.asked_step = ticket, self.now, self.steps
        self.asking[ticket] = client

    def _settle(self) -> None:
        for ticket, outcome in self.outcomes.items():
            client = self.asking.pop(ticket, None)
            if client is None:
                continue
            if client.is_open:
                self.open_seconds[client.owner].append(self.now - client.asked_at)
            else:
                self.waits[client.owner].append(self.steps - client.asked_step)
            if outcome.error is not None:
                self._note(client, outcome.error)
                self._leave(client)
                continue
            if client.is_open:
                client.is_open, client.parent, client.prompt = False, client.sequence, len(client.sequence.ids)
                client.sequence = self.fork(client.parent)
                self.opened[client.sequence.id] = client.sequence
            pause = self.dice.expovariate(1 / self.traffic.pause)
            self.pausing.append((self.now + pause, client.sequence.id, client))
        self.outcomes.clear()

    def _note(self, client: Client, error: Exception) -> None:
        if isinstance(error, GuardOverloaded):
            assert client.is_open, "a stream that was let in is never refused"
            self.refused += 1
            assert self.now - client.asked_at < self.limits.admission_seconds + 0.05, "refused late"
            return
        assert self.traffic.faults or self.traffic.restarts
        self.faulty += 1

    def _give_up(self, client: Client) -> None:
        del self.asking[client.ticket]
        self.scheduler.withdraw(client.sequence)
        self._leave(client)

    def _leave(self, client: Client) -> None:
        both = [client.sequence, *([client.parent] if client.parent is not None else [])]
        self.dice.shuffle(both)
        for sequence in both:
            del self.opened[sequence.id]
            self.scheduler.close(sequence)

    def fork(self, sequence: Sequence) -> Sequence:
        self._clients += 1
        child = Sequence(self._clients, sequence.owner, list(sequence.ids), sequence.computed)
        self.sequences[child.id] = child
        self.scheduler.fork(sequence, child)
        return child

    def _turn(self) -> Plan:
        plan = self.scheduler.plan(self.now)
        answers = self.memory.run(plan)
        for index in range(len(answers)):
            if self.dice.random() < self.traffic.faults:
                answers[index] = GuardFault("injected")
        self.scheduler.commit(plan, answers, self.now)
        self.collect()
        self.steps += 1
        return plan

    def _crash(self) -> None:
        plan = self.scheduler.plan(self.now)
        self.memory = Memory()
        cache = self.new_cache(self.traffic.budget, self.traffic.window)
        self.scheduler.restart(cache, self.opened.values(), plan, GuardUnavailable("crash"))
        self.restarts += 1

    def _check_step(self, plan: Plan) -> None:
        alone = [chunk for chunk in plan.chunks if chunk.job.crashes]
        assert not alone or len(plan.chunks) == 1
        long = sum(chunk.count for chunk in plan.chunks if chunk.count > self.limits.short)
        assert long <= self.limits.piece
        assert sum(chunk.count for chunk in plan.chunks) <= self.limits.step + self.limits.piece
        assert self.scheduler.cache.used_bytes <= self.scheduler.cache.budget_bytes
        for client in self.asking.values():
            if client.is_open and self.now - client.asked_at > self.limits.admission_seconds + 0.05:
                assert client.sequence not in self.scheduler.admission.opens, "an open waits longer than it may"
