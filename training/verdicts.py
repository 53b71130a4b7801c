"""Fits the Unsafe row of the answers' head to verdicts on whole answers that were not trained on.

The loop trains tokens of answers that are mostly cut short, and what it has seen a hundred times looks surer than it
is. Then one shift of the boundary must serve all that a guard meets: what keeps everyday answers quiet silences chats,
too. A row that is fitted to fresh answers tells them apart, since the features do. It is 128 numbers to a few
thousand answers, drawn towards the row that the loop has found, so that what tokens say changes little. An answer is
judged by its highest pair of tokens, but an everyday one by its highest token: clients that watch the levels see that.
"""

import logging

import torch
from torch import Tensor
from torch.nn import functional

from proxy.risk import RiskLevel
from training.data import ALL_HELD_OUT
from training.examples import Example
from training.judge import CONTROVERSIAL, SAFE, UNSAFE, read
from training.model import Guard
from training.rounds import LOWEST
from training.topics import HELD_SOURCE

log = logging.getLogger("training")

STEPS = 250
BATCH = 256
RATE = 0.03
SHARPNESS = 4.0  # as in `rounds.verdict_loss`, and nearer to the one highest pair
LONGEST = 400  # tokens of an answer
EVERYDAY_WEIGHT = 4.0  # of a false alarm where people ask for nothing unusual
DRAW = 1e-3  # towards the row that is there


def fresh_answers(held: list[Example]) -> list[Example]:
    """Those that may be fitted: the sources that only say how a text of unknown origin fares stay out."""
    unknown = (*ALL_HELD_OUT, HELD_SOURCE)
    return [e for e in held if e.answer_risk is not None and not e.source.startswith(unknown)]


def fit_answers(guard: Guard, answers: list[Example], seed: int) -> None:
    """In place."""
    replies = [reading.reply[:LONGEST].clone() for reading in read(guard, answers)]  # else of inference alone
    known = [index for index, reply in enumerate(replies) if len(reply) > 1]
    labels = torch.tensor([float(e.answer_risk is RiskLevel.UNSAFE) for e in answers])
    everyday = [bool(e.alarm) and e.answer_risk is RiskLevel.SAFE for e in answers]
    weights = torch.tensor([e.weight * (EVERYDAY_WEIGHT if everyday[i] else 1.0) for i, e in enumerate(answers)])
    head = guard.risk_level_head.weight.detach()
    change = torch.zeros(head.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=RATE)
    draws = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        chosen = [known[i] for i in torch.randint(len(known), (BATCH,), generator=draws).tolist()]
        verdicts = torch.stack([_highest(replies[i], head, change, everyday[i]) for i in chosen])
        loss = functional.binary_cross_entropy_with_logits(verdicts, labels[chosen], reduction="none")
        total = (loss * weights[chosen]).mean() + DRAW * change.square().sum()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 50 == 0 or step == STEPS - 1:
            log.info("verdicts on fresh answers, step %d: loss %.4f", step, total.item())
    with torch.no_grad():
        guard.risk_level_head.weight[UNSAFE] += change


def _highest(reply: Tensor, head: Tensor, change: Tensor, by_token: bool) -> Tensor:
    """How far the two consecutive tokens that look most unsafe lie beyond the boundary, or the one that does."""
    logits = reply @ head.T
    margins = logits[:, UNSAFE] + reply @ change - torch.maximum(logits[:, SAFE], logits[:, CONTROVERSIAL])
    judged = margins if by_token else torch.minimum(margins[1:], margins[:-1])
    return (judged.clamp(min=LOWEST) * SHARPNESS).logsumexp(-1) / SHARPNESS
