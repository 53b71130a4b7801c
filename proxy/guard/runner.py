"""A plan's chunks -> tensors -> risks: the only place where streams meet memory and model."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from proxy.guard.attention import Attention, Placed, Slab, place
from proxy.guard.cache import Change, Grow, Move, Retire, Scrub
from proxy.guard.model import GuardModel, Heads
from proxy.guard.protocol import GuardError, GuardFault
from proxy.guard.sequence import Chunk
from proxy.risk import PROMPT_CATEGORIES, RESPONSE_CATEGORIES, RISK_LEVELS, Category, Risk, Role

FALLBACK_BUDGET_BYTES = 2 << 30


class Runner:
    """Owns the slabs' memory. Nothing here survives an error of the caller: positions come with every chunk."""

    def __init__(self, model: GuardModel) -> None:
        self.model = model
        self._slabs: dict[int, Slab] = {}

    @property
    def kv_bytes_per_token(self) -> int:
        return self.model.architecture.kv_bytes_per_token(self.model.embedding.element_size())

    def default_budget_bytes(self) -> int:
        """A quarter of the memory that is free now: the rest of the machine has work too."""
        if self.model.device.type == "cuda":
            return torch.cuda.mem_get_info(self.model.device)[0] * 3 // 4
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
        except ValueError:  # not every system counts its free pages
            return FALLBACK_BUDGET_BYTES

    def use_threads(self, count: int) -> None:
        """How many threads an operation may use. To be called in the thread that runs the engine."""
        torch.set_num_threads(count)

    def reset(self) -> None:
        self._slabs.clear()

    def prepare(self, changes: Sequence[Change]) -> None:
        """Bring memory to where the plan expects it."""
        with torch.inference_mode():
            for change in changes:
                self._change(change)

    def run(self, chunks: Sequence[Chunk]) -> list[list[Risk] | GuardError]:
        """One answer a chunk: a risk for each of its reads, or a GuardFault when its numbers are not finite."""
        with torch.inference_mode():
            placed = place(chunks)
            hidden = self._forward(placed)
            answers = self._answer(hidden, placed)
        by_chunk = {id(at.chunk): answer for at, answer in zip(placed, answers, strict=True)}
        return [by_chunk[id(chunk)] for chunk in chunks]

    def _change(self, change: Change) -> None:
        match change:
            case Grow(slab, slots, capacity):
                self._slabs[slab] = Slab(self.model, slots, capacity)
            case Retire(slab):
                del self._slabs[slab]
            case Scrub(slab, index):
                self._slabs[slab].memory[:, :, index].zero_()
            case Move((source, source_index), (target, target_index), length):
                tokens = self._slabs[source].memory[:, :, source_index, :, :length]
                self._slabs[target].memory[:, :, target_index, :, :length] = tokens

    def _forward(self, placed: list[Placed]) -> Tensor:
        device = self.model.device
        ids: list[int] = []
        positions: list[int] = []
        for at in placed:
            end = at.chunk.start + at.chunk.count
            ids += at.chunk.sequence.ids[at.chunk.start : end]
            positions += range(at.chunk.start, end)
        attend = Attention(self._slabs, placed, self.model)
        return self.model.forward(
            torch.tensor(ids, device=device), torch.tensor(positions, device=device), max(positions), attend
        )

    def _answer(self, hidden: Tensor, placed: list[Placed]) -> list[list[Risk] | GuardError]:
        rows: dict[Role, list[int]] = {Role.ASSISTANT: [], Role.USER: []}
        for at in placed:
            offset = at.first - at.chunk.start
            rows[at.chunk.job.role] += [offset + position for position in at.chunk.reads]
        # One copy to the host: both roles' rows, and a number that is finite only if all of `hidden` is.
        parts = [hidden.sum(dtype=torch.float32).view(1)]
        heads = {Role.ASSISTANT: self.model.response, Role.USER: self.model.prompt}
        for role, wanted in rows.items():
            if wanted:
                parts.append(self._probabilities(hidden, wanted, heads[role]).flatten())
        flat: list[float] = torch.cat(parts).tolist()
        checked = flat[0] - flat[0] == 0.0
        finite = [True] * len(placed) if checked else _finite_chunks(hidden, placed)
        response = _Rows(flat, 1, self.model.response.width, RESPONSE_CATEGORIES)
        skip = len(rows[Role.ASSISTANT]) * self.model.response.width
        prompt = _Rows(flat, 1 + skip, self.model.prompt.width, PROMPT_CATEGORIES)
        readers = {Role.ASSISTANT: response, Role.USER: prompt}
        return [
            readers[at.chunk.job.role].take(len(at.chunk.reads), is_finite)
            for at, is_finite in zip(placed, finite, strict=True)
        ]

    def _probabilities(self, hidden: Tensor, rows: list[int], heads: Heads) -> Tensor:
        if len(rows) != len(hidden):
            hidden = hidden[torch.tensor(rows, device=hidden.device)]
        return self.model.probabilities(hidden, heads)


class _Rows:
    """Reads risks off the flat list of numbers that came from the device."""

    def __init__(self, flat: list[float], start: int, width: int, categories: tuple[Category, ...]) -> None:
        self._flat, self._at, self._width, self._categories = flat, start, width, categories

    def take(self, count: int, is_finite: bool) -> list[Risk] | GuardError:
        end = self._at + count * self._width
        starts, self._at = range(self._at, end, self._width), end
        if not is_finite:
            return GuardFault("the guard's numbers are not finite")
        risks = [_risk(self._flat[at : at + self._width], self._categories) for at in starts]
        # A NaN is unequal to itself, so it also shows in the sum of both distributions.
        if any(not 1.98 < sum(risk.levels) + sum(risk.categories) < 2.02 for risk in risks):
            return GuardFault("the guard's probabilities do not sum to one")
        return risks


def _risk(row: list[float], names: tuple[Category, ...]) -> Risk:
    levels, categories = tuple(row[:3]), tuple(row[3:])
    probability, category_probability = max(levels), max(categories)
    return Risk(
        RISK_LEVELS[levels.index(probability)],
        names[categories.index(category_probability)],
        probability,
        category_probability,
        levels,
        categories,
    )


def _finite_chunks(hidden: Tensor, placed: list[Placed]) -> list[bool]:
    finite: list[bool] = torch.isfinite(hidden).all(dim=-1).tolist()
    return [all(finite[at.first : at.first + at.chunk.count]) for at in placed]
