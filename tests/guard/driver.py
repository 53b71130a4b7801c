"""Drives an engine without a service: open, feed, fork, and run until every question has its answer."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proxy.guard.commands import Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.devices import AnyRunner
from proxy.guard.engine import Engine
from proxy.guard.limits import Limits
from proxy.guard.loader import LoadedGuard, load_guard
from proxy.guard.model import Attend, GuardModel
from proxy.guard.rows import read_rows, row_bytes
from proxy.guard.runner import Runner
from proxy.risk import Risk, Role
from tests.guard.checkpoints import Reference, random_tensors, small_config, write_checkpoint


class Small:
    """A small random guard and its reference."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        config = small_config(**changes)
        tensors = random_tensors(config)
        self.folder = write_checkpoint(folder, tensors, config)
        self.loaded: LoadedGuard = self.load()
        self.reference = Reference(config, tensors)

    def load(self, device: str = "cpu", dtype: str = "float32") -> LoadedGuard:
        return load_guard(str(self.folder), dtype=dtype, device=device)

    def engine(self, budget_tokens: int = 1 << 20, limits: Limits | None = None) -> "Driver":
        return Driver(self.loaded.model, budget_tokens, limits)


class Driver:
    def __init__(
        self, model: GuardModel, budget_tokens: int, limits: Limits | None = None, runner: AnyRunner | None = None
    ) -> None:
        runner = runner or Runner(model)
        budget = budget_tokens * runner.kv_bytes_per_token
        window = min(model.architecture.window, budget_tokens)
        self.engine = Engine(runner, window=window, budget_bytes=budget, limits=limits)
        self.now = 100.0
        self.answers: dict[int, Outcome] = {}
        self._roles: dict[int, Role] = {}
        self._number = 0

    def open(self, ids: list[int], read: Sequence[int] = (), owner: str = "") -> tuple[int, int]:
        """The stream's number, and the ticket of its answer."""
        stream, ticket = self._next(), self._next()
        self._apply(Open(ticket, stream, ids, list(read), Role.USER, owner))
        return stream, ticket

    def feed(self, stream: int, position: int, ids: list[int]) -> int:
        ticket = self._next()
        self._apply(Feed(ticket, stream, position, ids))
        return ticket

    def fork(self, stream: int, position: int) -> int:
        child = self._next()
        self._apply(Fork(stream, child, position))
        return child

    def close(self, *streams: int) -> None:
        for stream in streams:
            self._apply(Close(stream))

    def run(self) -> None:
        while self.engine.has_work:
            for outcome in self.engine.step(self.now):
                self.answers[outcome.ticket] = outcome
            self.now += 0.001

    def rows(self, ticket: int) -> list[list[float]]:
        self.run()
        outcome = self.answers[ticket]
        assert outcome.error is None, outcome.error
        role = self._roles[ticket]
        return rows_of(read_rows(outcome.rows, len(outcome.rows) // row_bytes(role), role))

    def _apply(self, command: Command) -> None:
        if isinstance(command, Open | Feed):
            self._roles[command.ticket] = command.role
        outcome = self.engine.apply(command, self.now)
        if outcome is not None:
            self.answers[outcome.ticket] = outcome

    def _next(self) -> int:
        self._number += 1
        return self._number


class Same(GuardModel):
    """Another guard with the same weights, to be given a fault."""

    def __init__(self, model: GuardModel, embedding: Tensor | None = None) -> None:
        table = model.embedding if embedding is None else embedding
        super().__init__(model.architecture, table, model.layers, model.final_norm, model.response, model.prompt)


class Poisoned(Same):
    """Its forward pass raises when it meets one id."""

    def __init__(self, model: GuardModel, poison: int, error: Callable[[], BaseException]) -> None:
        super().__init__(model, model.embedding)
        self.poison, self.error = poison, error
        self.calls = 0

    def forward(self, ids: Tensor, positions: Tensor, last: int, attend: Attend) -> Tensor:
        if (ids == self.poison).any():
            self.calls += 1
            raise self.error()
        return super().forward(ids, positions, last, attend)


class Held(Same):
    """Forward passes wait while it is told to."""

    def __init__(self, model: GuardModel) -> None:
        super().__init__(model, model.embedding)
        self.goes_on = threading.Event()
        self.goes_on.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        self.goes_on.clear()
        try:
            yield
        finally:
            self.goes_on.set()

    def forward(self, ids: Tensor, positions: Tensor, last: int, attend: Attend) -> Tensor:
        self.goes_on.wait()
        return super().forward(ids, positions, last, attend)


class Crashing(Same):
    """Fails, as often as it is told, where no single stream is to blame: while memory is prepared."""

    crashes = 0

    @property
    def dtype(self) -> torch.dtype:
        if self.crashes:
            self.crashes -= 1
            raise MemoryError("no memory for a slab")
        return super().dtype


def with_nan(model: GuardModel, *ids: int) -> GuardModel:
    """The same guard, but these ids become numbers that are not finite."""
    embedding = model.embedding.clone()
    embedding[list(ids)] = float("nan")
    return Same(model, embedding)


def rows_of(risks: Sequence[Risk]) -> list[list[float]]:
    return [[*risk.levels, *risk.categories] for risk in risks]


def distance(found: list[list[float]], expected: list[list[float]]) -> float:
    """The largest difference of two equally shaped lists of rows."""
    assert len(found) == len(expected)
    return float((torch.tensor(found) - torch.tensor(expected)).abs().max()) if found else 0.0
