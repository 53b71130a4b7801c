"""A fleet at work: proxies ask, engines step, verdicts come back. Many streams and engines at a time, by numpy.

Time goes in windows. At the beginning of one, streams come, engines go or come, and who has no engine gets one. Within
it every engine steps by its own clock: all short questions that have arrived, whole, and one piece of the prompts in
turns, as `proxy.guard.scheduler` plans it. What one engine does in a window no other depends on.

A stream asks one question at a time, as a proxy does: for all tokens that have come since it last did.
"""

import numpy as np

from bench.fleet.fleet import Fleet, Outcome
from bench.fleet.lags import Lags
from bench.fleet.live import NOWHERE, before, come
from bench.fleet.model import LIMITS, Flags, Ints, Numbers, Work, pages
from bench.fleet.placement import REPORT_SECONDS, Known
from bench.fleet.traffic import Offer

WINDOW_SECONDS = 0.05


def is_time(now: float, every: float) -> bool:
    """Whether a window begins at which something happens that happens so often."""
    return round(now / WINDOW_SECONDS) % round(every / WINDOW_SECONDS) == 0


class Simulation:
    def __init__(self, fleet: Fleet, offer: Offer, seconds: float, seed: int, *, to_the_end: bool = False) -> None:
        """Until `seconds` are over; or, with `to_the_end`, until every stream that came has ended."""
        self.fleet, self.offer, self.seconds, self.to_the_end = fleet, offer, seconds, to_the_end
        self._dice = np.random.default_rng(seed)
        self._most = max(fleet.engines, fleet.most)
        self._is_alive: Flags = np.arange(self._most) < fleet.engines
        self._clock = np.zeros(self._most)
        self._group = np.arange(self._most) % fleet.groups
        self._budget = fleet.machine.kv_tokens(fleet.shape)
        self._known = Known(self._most, fleet.proxies)
        self._known.lose(self._is_alive)
        self._starting: list[float] = []  # when new engines will be there
        self._come = 0
        self._lost = False
        self._live = come(offer, slice(0, 0), fleet.proxies, self._dice)
        groups, length = fleet.groups, int(np.ceil(seconds)) + 1
        self.outcome = Outcome(Lags(groups, length), Lags(groups, length), len(offer))
        self.outcome.refused, self.outcome.evicted = np.zeros((2, groups), np.int64)
        self.outcome.busy, self.outcome.hosted, self.outcome.fullest = np.zeros((3, groups))

    def run(self) -> Outcome:
        windows = 0
        while not self._is_over(now := windows * WINDOW_SECONDS):
            self._begin(now)
            until = (windows + 1) * WINDOW_SECONDS
            while (is_active := self._is_alive & (self._clock < until)).any():
                self._turn(is_active, until)
            self._end(until)
            windows += 1
        self.outcome.open = len(self._live)
        return self.outcome

    def _is_over(self, now: float) -> bool:
        if not self.to_the_end:
            return now >= self.seconds - 1e-9
        return self._come == len(self.offer) and not len(self._live)

    # Between windows.

    def _begin(self, now: float) -> None:
        self._scale(now)
        self._lose(now)
        until = int(np.searchsorted(self.offer.opened, now + WINDOW_SECONDS))
        more = come(self.offer, slice(self._come, until), self.fleet.proxies, self._dice)
        self._live = self._live.with_more(more) if len(more) else self._live
        self._come = until
        if is_time(now, REPORT_SECONDS):
            self._known.report()
        self._place(now)
        if not now:
            self._seat_standing()

    def _place(self, now: float) -> None:
        """Who has no engine gets one, if it is known by now that it needs one."""
        live, known = self._live, self._known
        waiting = np.flatnonzero((live.engine == NOWHERE) & (live.asked < now + WINDOW_SECONDS))
        if not len(known.alive):
            return
        for stream in waiting:
            proxy = int(live.proxy[stream])
            engine, has_turn = self.fleet.choose(known, proxy, int(live.home[stream]), self._dice)
            known.give(proxy, engine)
            live.engine[stream] = engine
            if has_turn and not live.replayed[stream]:
                live.todo[stream] -= live.known[stream]

    def _seat_standing(self) -> None:
        """Streams that were there before it began have their memory, as far as there is any."""
        live = self._live
        standing = np.flatnonzero(live.replayed)
        order = standing[np.argsort(live.engine[standing], kind="stable")]
        need = pages(live.prompt[order] + live.answer[order])
        fits = before(live.engine[order], need) + need <= self._budget
        live.held[order[fits]] = True
        self._drop(order[~fits])

    def _lose(self, now: float) -> None:
        loss, live = self.fleet.loss, self._live
        if loss is None or self._lost or now < loss.at:
            return
        self._lost = True
        gone = self._known.alive[: loss.engines]
        self._is_alive[gone] = False
        self._known.lose(self._is_alive)
        moved = np.isin(live.engine, gone)
        started = moved & ((live.taken > 0) | live.held)
        live.todo[moved] = live.prompt[moved] + live.taken[moved]
        live.replayed |= started
        live.engine[moved], live.held[moved], live.asked[moved] = NOWHERE, False, now + loss.unnoticed
        self.outcome.moved += int(moved.sum())
        self.outcome.replayed_tokens += int(live.todo[started].sum())

    def _scale(self, now: float) -> None:
        there = [at for at in self._starting if at <= now]
        if there:
            self._starting = [at for at in self._starting if at > now]
            new = np.flatnonzero(~self._is_alive)[: len(there)]
            self._is_alive[new], self._clock[new] = True, now
            self._known.lose(self._is_alive)
        scaling = self.fleet.scaling
        if scaling is None or not is_time(now, scaling.every):
            return
        wanted = min(self._most, int(np.ceil(len(self._live) / scaling.target)))
        missing = wanted - int(self._is_alive.sum()) - len(self._starting)
        self._starting += [now + scaling.delay] * max(0, missing)

    def _end(self, now: float) -> None:
        out = self.outcome
        out.engine_seconds += WINDOW_SECONDS * int(self._is_alive.sum())
        if int(now) > len(out.alive) - 1:
            loads = self._known.now[self._known.alive]
            out.alive.append(len(loads))
            out.streams.append(len(self._live))
            out.uneven.append(float(loads.max() / max(1.0, loads.mean())) if len(loads) else 0.0)
        is_done = self._live.taken >= self._live.answer
        if is_done.any():
            out.finished += int(is_done.sum())
            self._forget(is_done)

    # A step of every engine whose clock is behind.

    def _turn(self, is_active: Flags, until: float) -> None:
        live = self._live
        mine = np.flatnonzero((live.engine != NOWHERE) & is_active[live.engine] & (live.taken < live.answer))
        clock = self._clock[live.engine[mine]]
        self._admit(mine, clock)
        asks = live.asks(mine)
        is_ready = live.held[mine] & (live.todo[mine] == 0)
        is_there = is_ready & (asks + self.fleet.machine.hop <= clock)
        short, counts = self._short(mine[is_there], asks[is_there])
        long, pieces = self._long(mine[live.held[mine] & (live.todo[mine] > 0)])
        work = Work(self._most)
        work.add(live.engine[short], counts, live.prompt[short] + live.taken[short] + counts)
        work.add(live.engine[long], pieces, live.prompt[long] + live.taken[long] - live.todo[long] + pieces)
        seconds = self._seconds(work)
        self._answer(short, counts, seconds)
        self._read(long, pieces, seconds)
        is_idle = is_active & (work.questions == 0)
        if is_idle.any():
            self._sleep(is_idle, mine[is_ready], asks[is_ready], until)
        self._clock += seconds
        self._make_room(is_active)

    def _seconds(self, work: Work) -> Numbers:
        """Of each engine's step; nothing for one without work."""
        machine, out = self.fleet.machine, self.outcome
        is_busy = work.questions > 0
        host = np.where(is_busy, machine.host_seconds(work.questions, work.tokens), 0.0)
        device = np.where(is_busy, machine.gpu_seconds(self.fleet.shape, work.tokens, work.read, work.looked), 0.0)
        seconds: Numbers = host + device
        out.busy += np.bincount(self._group, seconds, self.fleet.groups)
        out.hosted += np.bincount(self._group, host, self.fleet.groups)
        return seconds

    def _short(self, ready: Ints, asks: Numbers) -> tuple[Ints, Ints]:
        """Questions of a step and their tokens; those that have waited longest first, where they are too many."""
        live = self._live
        arrived = ((asks - live.first[ready]) * live.rate[ready] + 1e-6).astype(np.int64) + 1
        counts = np.clip(np.minimum(arrived, live.answer[ready]) - live.taken[ready], 1, LIMITS.short)
        engine = live.engine[ready]
        if not len(ready) or np.bincount(engine, counts).max() <= self.fleet.step:
            return ready, counts
        order = np.lexsort((asks, engine))
        fits = before(engine[order], counts[order]) + counts[order] <= self.fleet.step
        return ready[order][fits], counts[order][fits]

    def _long(self, waiting: Ints) -> tuple[Ints, Ints]:
        """Prompts of a step, in turns, and the tokens of each."""
        live = self._live
        order = waiting[np.lexsort((live.served[waiting], live.engine[waiting]))]
        room = self.fleet.piece - before(live.engine[order], live.todo[order])
        pieces = np.minimum(live.todo[order], room)
        return order[pieces > 0], pieces[pieces > 0]

    def _answer(self, short: Ints, counts: Ints, seconds: Numbers) -> None:
        live, engine = self._live, self._live.engine[short]
        at = self._clock[engine] + seconds[engine] + self.fleet.machine.hop
        which = np.repeat(np.arange(len(short)), counts)
        token = np.arange(len(which)) + np.repeat(live.taken[short] - (np.cumsum(counts) - counts), counts)
        arrived = live.first[short][which] + token / live.rate[short][which]
        self.outcome.lags.add(self._group[engine][which], at[which], at[which] - arrived)
        self.outcome.judged += len(which)
        live.taken[short] += counts
        live.free[short] = at

    def _read(self, long: Ints, pieces: Ints, seconds: Numbers) -> None:
        live, engine = self._live, self._live.engine[long]
        at = self._clock[engine] + seconds[engine]
        live.todo[long] -= pieces
        live.served[long] = at
        self.outcome.read_tokens += int(pieces.sum())
        is_read = live.todo[long] == 0
        done, at, group = long[is_read], at[is_read] + self.fleet.machine.hop, self._group[engine[is_read]]
        live.free[done] = at
        is_new = ~live.replayed[done]
        self.outcome.prompts.add(group[is_new], at[is_new], (at - live.opened[done])[is_new])
        live.replayed[done] = True

    def _sleep(self, is_idle: Flags, ready: Ints, asks: Numbers, until: float) -> None:
        """An engine without work waits until it is asked, or until something may have changed."""
        live, hop = self._live, self.fleet.machine.hop
        following = np.full(self._most, until)
        np.minimum.at(following, live.engine[ready], asks + hop)
        new = np.flatnonzero(~live.held & (live.engine != NOWHERE) & (live.taken < live.answer))
        new = new[live.asked[new] + hop > self._clock[live.engine[new]]]
        np.minimum.at(following, live.engine[new], live.asked[new] + hop)
        self._clock[is_idle] = np.clip(following, self._clock + 1e-6, until)[is_idle]

    # Memory.

    def _used(self) -> Ints:
        """Tokens of pages by engine."""
        live = self._live
        has = np.flatnonzero(live.held & (live.taken < live.answer))
        return np.bincount(live.engine[has], pages(live.prompt[has] + live.taken[has]), self._most).astype(np.int64)

    def _admit(self, mine: Ints, clock: Numbers) -> None:
        """Room for those that wait: first for streams that were let in before, then in the order in which they came."""
        live = self._live
        is_waiting = ~live.held[mine] & (live.asked[mine] + self.fleet.machine.hop <= clock)
        if not is_waiting.any():
            return
        waiting, clock = mine[is_waiting], clock[is_waiting]
        order = np.lexsort((live.asked[waiting], ~live.replayed[waiting], live.engine[waiting]))
        waiting, clock = waiting[order], clock[order]
        need = pages(live.prompt[waiting] + live.taken[waiting])
        free = self._budget - self._used()[live.engine[waiting]]
        fits = before(live.engine[waiting], need) + need <= free
        live.held[waiting[fits]] = True
        is_late = ~fits & ~live.replayed[waiting] & (clock - live.asked[waiting] > self.fleet.admission)
        self._drop(waiting[is_late])

    def _make_room(self, is_active: Flags) -> None:
        """Answers have grown: where they no longer fit, those that were silent longest give their memory up."""
        live, used = self._live, self._used()
        share = np.where(is_active, used / self._budget, 0.0)
        np.maximum.at(self.outcome.fullest, self._group, share)
        for engine in np.flatnonzero(is_active & (used > self._budget)):
            holders = np.flatnonzero(live.held & (live.engine == engine) & (live.taken < live.answer))
            holders = holders[np.argsort(live.free[holders], kind="stable")]
            sizes = pages(live.prompt[holders] + live.taken[holders])
            enough = int(np.searchsorted(np.cumsum(sizes), used[engine] - self._budget)) + 1
            victims = holders[:enough]
            live.held[victims], live.asked[victims] = False, self._clock[engine]
            live.todo[victims] = live.prompt[victims] + live.taken[victims]
            live.replayed[victims] = True
            self.outcome.evicted[self._group[engine]] += len(victims)
            self.outcome.replayed_tokens += int(live.todo[victims].sum())

    # The end of a stream.

    def _drop(self, streams: Ints) -> None:
        """They are refused, and are gone at the end of the window."""
        live = self._live
        self.outcome.refused += np.bincount(self._group[live.engine[streams]], minlength=self.fleet.groups)
        self.outcome.finished -= len(streams)  # which are counted when they are forgotten
        live.taken[streams] = live.answer[streams]
        live.todo[streams] = 0

    def _forget(self, which: Flags) -> None:
        live = self._live
        placed = which & (live.engine != NOWHERE)
        self._known.take(live.proxy[placed], live.engine[placed])
        self._live = live.kept(~which)
