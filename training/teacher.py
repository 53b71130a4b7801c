"""What a teacher thinks of each prompt: a small classifier on the frozen sentence encoder's vectors.

The encoder has read far more than our data: texts that mean the same lie close together whatever their
words, so the classifier judges requests in new words better than the guard that learns from the labels
alone. The guard learns from its opinions beside the labels, and on prompts that have no label at all.
Each half of the labelled prompts is judged by the classifier that was fitted on the other half.
"""

import hashlib
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxy.risk import RISK_LEVELS, RiskLevel
from training.data import share_of
from training.examples import Example
from training.features import encode_texts, fetch_encoder
from training.passages import SOURCE as PASSAGES
from training.topics import SOURCE as TOPICS

log = logging.getLogger("training")

LONGEST = 300  # characters: of a longer prompt one vector says little
MAX_TOKENS = 40
ASCII_SHARE = 0.9  # the encoder knows English
SPREAD = 20.0  # brings a unit vector's components near 1
INNER = 256
PASSES = 8
BATCH = 256
RATE, DECAY, DROPOUT, SMOOTHING = 1e-3, 0.01, 0.3, 0.03

# The chances of the risk levels, in their order, by prompt.
Opinions = dict[str, tuple[float, ...]]


def opinions_of(examples: list[Example], work: Path, seed: int) -> Opinions:
    """Opinions of the short English prompts in `examples`; the encoder's vectors are kept in `work`."""
    judged = [e for e in examples if is_short_english(e.prompt) and not e.source.startswith((PASSAGES, TOPICS))]
    texts = sorted({example.prompt for example in judged})
    # Named by what it holds: other texts are encoded anew.
    path = work / f"prompts-{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:12]}.npy"
    if not path.exists():
        log.info("encoding %d prompts", len(texts))
        np.save(path, encode_texts(fetch_encoder(work), texts, MAX_TOKENS).astype(np.float16))
    vectors = torch.from_numpy(np.load(path)).float()
    return opinions_on(vectors, texts, judged, seed)


def is_short_english(prompt: str) -> bool:
    return 0 < len(prompt) <= LONGEST and sum(char.isascii() for char in prompt) >= ASCII_SHARE * len(prompt)


def opinions_on(vectors: Tensor, texts: list[str], examples: list[Example], seed: int) -> Opinions:
    """Opinions of `texts`, whose vectors are the rows of `vectors`, from the labels that `examples` give them."""
    row_of = {text: row for row, text in enumerate(texts)}
    labels = torch.full((len(texts),), -1)
    weights = torch.zeros(len(texts))
    for example in examples:
        if example.prompt_risk is not None:
            row = row_of[example.prompt]
            labels[row] = RISK_LEVELS.index(example.prompt_risk)
            weights[row] = _weight(example)
    points = (vectors - vectors[labels >= 0].mean(0)) * SPREAD
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(2, (len(texts),), generator=generator)
    halves = [(labels >= 0) & (half == side) for side in (0, 1)]
    first, second = (_fitted(points, labels, weights, chosen, seed) for chosen in halves)
    # A prompt without a label was seen by neither.
    chances = torch.where(
        (labels >= 0)[:, None], torch.where((half == 0)[:, None], second, first), (first + second) / 2
    )
    known = labels >= 0
    agreed = (chances[known].argmax(-1) == labels[known]).float().mean()
    log.info("the teacher agrees with %.1f %% of the labels that it was not fitted on", 100 * agreed)
    return {text: tuple(row) for text, row in zip(texts, chances.tolist(), strict=True)}


def _weight(example: Example) -> float:
    share = min(1.0, share_of(example.source) + 0.2)
    return example.weight * share * (2 if example.alarm and example.prompt_risk is RiskLevel.SAFE else 1)


def _fitted(points: Tensor, labels: Tensor, weights: Tensor, chosen: Tensor, seed: int) -> Tensor:
    """The chances that a classifier gives all `points`, fitted on those that are `chosen`."""
    torch.manual_seed(seed)
    classes = len(RISK_LEVELS)
    net = nn.Sequential(nn.Linear(points.shape[1], INNER), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(INNER, classes))
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    rows = chosen.nonzero()[:, 0]
    for _ in range(PASSES):
        for batch in torch.split(rows[torch.randperm(len(rows))], BATCH):
            loss = functional.cross_entropy(
                net(points[batch]), labels[batch], reduction="none", label_smoothing=SMOOTHING
            )
            optimizer.zero_grad()
            (loss * weights[batch]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        result: Tensor = net.eval()(points).softmax(-1)
    return result
