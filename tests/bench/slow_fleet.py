"""A slow, obvious version of the simulated fleet: one engine, a stream after another, memory without limits."""

from dataclasses import dataclass

import numpy as np

from bench.fleet.fleet import Fleet
from bench.fleet.model import LIMITS
from bench.fleet.traffic import Offer


@dataclass
class Stream:
    opened: float
    first: float
    rate: float
    prompt: int
    answer: int
    todo: int
    taken: int
    free: float
    served: float

    def arrival(self, token: int) -> float:
        return self.first + token / self.rate

    @property
    def asks(self) -> float:
        return max(self.arrival(self.taken), self.free)


@dataclass
class Question:
    stream: Stream
    count: int
    end: int  # how far its last token looks


def obvious(fleet: Fleet, offer: Offer) -> list[float]:
    """The lag of each verdict."""
    hop, lags, clock = fleet.machine.hop, list[float](), 0.0
    streams = streams_of(offer)
    while streams:
        work = [*short(fleet, streams, clock), *long(fleet, streams, clock)]
        if not work:
            clock = min(one.opened if one.todo else one.asks for one in streams) + hop
            continue
        clock += seconds_of(fleet, work)
        for question in work:
            one = question.stream
            if one.todo:
                one.todo, one.served = one.todo - question.count, clock
            else:
                lags += [clock + hop - one.arrival(one.taken + more) for more in range(question.count)]
                one.taken += question.count
            one.free = clock + hop
        streams = [one for one in streams if one.taken < one.answer]
    return lags


def streams_of(offer: Offer) -> list[Stream]:
    found = []
    for at in range(len(offer)):
        opened, first, rate = float(offer.opened[at]), float(offer.first[at]), float(offer.rate[at])
        prompt, answer, read = int(offer.prompt[at]), int(offer.answer[at]), int(offer.read[at])
        todo = prompt if read < 0 else 0
        found.append(Stream(opened, first, rate, prompt, answer, todo, max(read, 0), opened, opened))
    return found


def short(fleet: Fleet, streams: list[Stream], clock: float) -> list[Question]:
    """Whole, those that have waited longest first."""
    work, room = [], fleet.step
    for one in sorted(streams, key=lambda stream: stream.asks):
        if one.todo or one.asks + fleet.machine.hop > clock:
            continue
        arrived = sum(one.arrival(token) <= one.asks + 1e-9 for token in range(one.taken, one.answer))
        count = min(arrived, LIMITS.short)
        if count > room:
            break
        room -= count
        work.append(Question(one, count, one.prompt + one.taken + count))
    return work


def long(fleet: Fleet, streams: list[Stream], clock: float) -> list[Question]:
    """One piece, in turns."""
    work, room = [], fleet.piece
    for one in sorted(streams, key=lambda stream: stream.served):
        if one.todo and room and one.opened + fleet.machine.hop <= clock:
            count = min(room, one.todo)
            room -= count
            work.append(Question(one, count, one.prompt - one.todo + count))
    return work


def seconds_of(fleet: Fleet, work: list[Question]) -> float:
    tokens = sum(one.count for one in work)
    looked = sum(sum(range(one.end - one.count + 1, one.end + 1)) for one in work)
    all_tokens, read, pairs = (
        np.array([tokens]),
        np.array([float(sum(one.end for one in work))]),
        np.array([float(looked)]),
    )
    host = fleet.machine.host_seconds(np.array([len(work)]), all_tokens)
    return float(fleet.machine.gpu_seconds(fleet.shape, all_tokens, read, pairs)[0] + host[0])
