"""Final hidden states -> the rows that were asked for, in one copy to the host; nothing that is not finite gets out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from proxy.guard.model import GuardModel
from proxy.guard.protocol import GuardError, GuardFault
from proxy.guard.rows import SUMS
from proxy.guard.slab import Placed
from proxy.risk import Role

ROLES = (Role.ASSISTANT, Role.USER)


def read_answers(model: GuardModel, hidden: Tensor, placed: Sequence[Placed]) -> list[bytes | GuardError]:
    """hidden [T, hidden] -> for each chunk the rows of its reads (see `rows`), or a GuardFault.

    A chunk whose numbers are not finite is a fault even where nothing is read: its keys are in the cache.
    """
    wanted: dict[Role, list[int]] = {role: [] for role in ROLES}
    for at in placed:
        offset = at.first - at.chunk.start
        wanted[at.chunk.job.role] += [offset + position for position in at.chunk.reads]
    # Both roles' rows, and a number that is finite only if all of `hidden` is.
    parts = [hidden.sum(dtype=torch.float32).view(1)]
    heads = {Role.ASSISTANT: model.response, Role.USER: model.prompt}
    for role in ROLES:
        if wanted[role]:
            rows = hidden if len(wanted[role]) == len(hidden) else hidden[_index(wanted[role], hidden)]
            parts.append(model.probabilities(rows, heads[role]).flatten())
    flat = torch.cat(parts).cpu()
    is_finite = bool(torch.isfinite(flat[0]))
    finite = [True] * len(placed) if is_finite else _finite_chunks(hidden, placed)
    readers, start = {}, 1
    for role in ROLES:
        width = heads[role].width
        end = start + len(wanted[role]) * width
        readers[role] = _Reader(flat[start:end].view(-1, width))
        start = end
    return [
        readers[at.chunk.job.role].take(len(at.chunk.reads), is_finite)
        for at, is_finite in zip(placed, finite, strict=True)
    ]


class _Reader:
    """Cuts one role's rows into the chunks' shares, in order."""

    def __init__(self, rows: Tensor) -> None:
        sums = rows.sum(dim=1)
        # NaN compares false with everything.
        self._good: list[bool] = ((sums > SUMS[0]) & (sums < SUMS[1])).tolist()
        self._data = rows.numpy().tobytes()
        self._row_bytes = rows.shape[1] * rows.element_size()
        self._at = 0

    def take(self, count: int, is_finite: bool) -> bytes | GuardError:
        start, self._at = self._at, self._at + count
        if not is_finite:
            return GuardFault("the guard's numbers are not finite")
        if not all(self._good[start : self._at]):
            return GuardFault("the guard's probabilities do not sum to one")
        return self._data[start * self._row_bytes : self._at * self._row_bytes]


def _index(rows: list[int], hidden: Tensor) -> Tensor:
    return torch.tensor(rows, device=hidden.device)


def _finite_chunks(hidden: Tensor, placed: Sequence[Placed]) -> list[bool]:
    finite: list[bool] = torch.isfinite(hidden).all(dim=-1).tolist()
    return [all(finite[at.first : at.first + at.chunk.count]) for at in placed]
