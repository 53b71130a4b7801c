"""The training loop: seeded, with a progress bar, resumable after every pass."""

import logging
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional

from proxy.risk import RISK_LEVELS, RiskLevel
from training.batches import IGNORED, Batch, Mixer, batches
from training.data import share_of
from training.examples import Example
from training.model import Guard
from training.teacher import Opinions

log = logging.getLogger("training")

CATEGORY_WEIGHT = 0.3
VERDICT_WEIGHT = 1.0
SHARPNESS = 2.0  # how close the verdict comes to the one highest pair of tokens
SMOOTHING = 0.03  # labels are never quite sure
WARMUP_STEPS = 100
LOWEST = -30.0  # the margin of a token that is not judged


@dataclass(frozen=True, slots=True)
class Plan:
    passes: int
    rate: float = 2.5e-3
    decay: float = 0.02
    seed: int = 7
    limit: int | None = None  # examples a pass, for a quick try
    minutes: float | None = None  # on a machine that others use too: end the schedule by then


def loss_of(guard: Guard, batch: Batch) -> Tensor:
    hidden = guard.model(batch.ids).flatten(0, 1)
    total: Tensor = hidden.new_zeros(())
    if len(batch.query_at):
        total = total + _loss(*guard.query(hidden[batch.query_at]), batch.query, batch.aims) / len(batch.ids)
    if len(batch.reply_at):
        risks, categories = guard.reply(hidden[batch.reply_at])
        total = total + _loss(risks, categories, batch.reply, batch.reply_aims) / len(batch.ids) / 4
        total = total + VERDICT_WEIGHT * verdict_loss(risks, batch) / len(batch.ids)
    return total


def verdict_loss(risks: Tensor, batch: Batch) -> Tensor:
    """An answer is judged by the two consecutive tokens that look most unsafe, so that is trained too."""
    others = [index for index, level in enumerate(RISK_LEVELS) if level is not RiskLevel.UNSAFE]
    margins = risks[:, RISK_LEVELS.index(RiskLevel.UNSAFE)] - risks[:, others].logsumexp(-1)
    grid = risks.new_full((len(batch.ids) * batch.longest,), LOWEST).index_copy(0, batch.reply_at, margins)
    grid = grid.view(len(batch.ids), batch.longest)
    pairs = torch.minimum(grid[:, 1:], grid[:, :-1])
    highest = (pairs * SHARPNESS).logsumexp(-1) / SHARPNESS
    alarm = torch.zeros(grid.numel()).index_copy(0, batch.reply_at, batch.reply[:, 3])
    label = batch.verdicts
    loss = functional.binary_cross_entropy_with_logits(
        highest, label * (1 - 2 * SMOOTHING) + SMOOTHING, reduction="none"
    )
    weight = batch.weights * (1 + (1 - label) * alarm.view_as(grid).amax(-1) / 4)
    result: Tensor = (loss * weight)[(batch.weights > 0)].sum()
    return result


def _loss(risks: Tensor, categories: Tensor, targets: Tensor, aims: Tensor) -> Tensor:
    """`aims` are the chances of the risk levels that are to be reached."""
    risk, category, weight = targets[:, 0].long(), targets[:, 1].long(), targets[:, 2]
    loss = functional.cross_entropy(risks, aims, reduction="none", label_smoothing=SMOOTHING)
    kinds = functional.cross_entropy(categories, category, reduction="none", ignore_index=IGNORED)
    # One false alarm spoils a whole answer, so the safe tokens that look unsafe count more.
    chance = risks.detach().softmax(-1)[:, RISK_LEVELS.index(RiskLevel.UNSAFE)]
    weight = weight * (1 + targets[:, 3] * chance * (risk == RISK_LEVELS.index(RiskLevel.SAFE)))
    result: Tensor = ((loss + CATEGORY_WEIGHT * kinds) * weight).sum()
    return result


def train(
    guard: Guard,
    examples: list[Example],
    plan: Plan,
    work: Path,
    opinions: Opinions | None = None,
    answers: Opinions | None = None,
) -> float:
    """Train in place; returns the passes made. A stop loses at most one pass: its state is in `work`."""
    groups = _parameter_groups(guard, plan.decay)
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)
    first, minutes = _resume(guard, optimizer, work)
    clock = _Clock(plan, minutes)
    made = first
    while made < plan.passes and clock.done(made) < 1:
        index = int(made)
        rng = random.Random(plan.seed * 1000 + index)
        torch.manual_seed(plan.seed * 1000 + index)
        drawn = _draw(examples, rng, plan.limit)
        loss, share = _one_pass(guard, optimizer, drawn, Mixer(drawn, rng, opinions, answers), clock, index, rng)
        made = index + share
        log.info("pass %d of %d: loss %.4f", index + 1, plan.passes, loss)
        _save(guard, optimizer, work, made, clock.minutes)
    return made


def _parameter_groups(guard: Guard, decay: float) -> list[dict[str, object]]:
    matrices = [p for p in guard.parameters() if p.dim() == 2]
    vectors = [p for p in guard.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _draw(examples: list[Example], rng: random.Random, limit: int | None) -> list[Example]:
    drawn = [example for example in examples for _ in range(int(share_of(example.source) + rng.random()))]
    rng.shuffle(drawn)
    return drawn[:limit]


def _one_pass(
    guard: Guard,
    optimizer: torch.optim.Optimizer,
    drawn: list[Example],
    mixer: Mixer,
    clock: "_Clock",
    index: int,
    rng: random.Random,
) -> tuple[float, float]:
    """(mean loss, share of the pass that was made before the time was up)."""
    plan = clock.plan
    queue = list(batches([mixer.sequence(example) for example in drawn], rng))
    guard.train()
    total = 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(f"pass {index + 1} of {plan.passes}", total=len(queue))
        for step, batch in enumerate(queue):
            done = clock.done(index + step / len(queue))
            if done >= 1:
                log.info("out of time at step %d of %d", step, len(queue))
                return total / max(1, step), step / len(queue)
            _set_rate(optimizer, plan.rate * _schedule(index * len(queue) + step, done))
            loss = loss_of(guard, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(guard.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
            if step % 50 == 0:
                log.info("pass %d step %d of %d: mean loss %.4f", index + 1, step, len(queue), total / (step + 1))
            progress.advance(task)
    return total / max(1, len(queue)), 1.0


class _Clock:
    """How much of the plan is done, by passes or by time, whichever is further."""

    def __init__(self, plan: Plan, minutes: float) -> None:
        self.plan = plan
        self._start = time.monotonic() - 60 * minutes

    @property
    def minutes(self) -> float:
        """Of training, those before a stop included."""
        return (time.monotonic() - self._start) / 60

    def done(self, passes: float) -> float:
        by_time = self.minutes / self.plan.minutes if self.plan.minutes else 0.0
        return max(passes / self.plan.passes, by_time)


def _schedule(step: int, done: float) -> float:
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _save(guard: Guard, optimizer: torch.optim.Optimizer, work: Path, passes: float, minutes: float) -> None:
    weights = {"guard": guard.state_dict(), "optimizer": optimizer.state_dict()}
    state = {**weights, "passes": passes, "minutes": minutes}
    torch.save(state, work / "state.new")
    (work / "state.new").rename(work / "state.pt")


def _resume(guard: Guard, optimizer: torch.optim.Optimizer, work: Path) -> tuple[float, float]:
    """(passes made, minutes of training)."""
    path = work / "state.pt"
    if not path.exists():
        return 0.0, 0.0
    state = torch.load(path, weights_only=True)
    guard.load_state_dict(state["guard"])
    optimizer.load_state_dict(state["optimizer"])
    log.info("going on after %.2f passes", state["passes"])
    return float(state["passes"]), float(state["minutes"])
