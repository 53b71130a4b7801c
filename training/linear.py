"""The baseline: TF-IDF of token unigrams and bigrams with logistic regression, one model a kind of text.

It reads a prompt or an answer by itself, whole; its threshold comes from the same held-out texts and
the same shares as the guard's. What it thinks of each token is where the guard's token vectors start.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from proxy.risk import RISK_LEVELS, RiskLevel
from training.data import share_of
from training.examples import Example
from training.judge import CONTROVERSIAL, SAFE, UNSAFE, Verdict
from training.vocabulary import RANKS, encode, encode_many, token_texts

BUCKETS = 1 << 18
PASSES = 4
BATCH = 512
RATE = 0.02
LONGEST = 600  # tokens
STRONGEST = 4.0  # spreads

Buckets = NDArray[np.int64]
# The chances of the risk levels, in their order, by text.
Opinions = dict[str, tuple[float, ...]]


def _unigram_buckets(ids: NDArray[np.int64]) -> Buckets:
    return np.asarray(ids * 2_654_435_761 % BUCKETS, dtype=np.int64)


def buckets_of(text: str) -> list[Buckets]:
    """For each token of the lower-cased text, the buckets of the unigram and the bigram that it completes."""
    ids = np.array(encode(" " + text.lower())[:LONGEST], dtype=np.int64)
    unigrams = _unigram_buckets(ids)
    before = np.concatenate([[0], ids[:-1]]) if len(ids) else ids
    bigrams = (ids * 40_503 + before * 2_246_822_519 + 7) % BUCKETS
    return [unigrams, bigrams]


class Linear(nn.Module):
    """Scores of Safe, Unsafe, Controversial for texts of one kind."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(BUCKETS, len(RISK_LEVELS), mode="sum")
        self.bias = nn.Parameter(torch.zeros(len(RISK_LEVELS)))
        self.register_buffer("weights", torch.ones(BUCKETS))
        nn.init.zeros_(self.table.weight)

    def forward(self, texts: Sequence[Buckets]) -> Tensor:
        offsets = torch.tensor([0, *np.cumsum([len(text) for text in texts])[:-1]], dtype=torch.long)
        flat = torch.from_numpy(np.concatenate(texts)) if texts else torch.zeros(0, dtype=torch.long)
        weights = self.weights[flat]  # type: ignore[index]
        lengths = torch.tensor([len(text) for text in texts])
        owner = torch.repeat_interleave(torch.arange(len(texts)), lengths)
        norms = torch.zeros(len(texts)).index_add_(0, owner, weights**2).sqrt().clamp(min=1e-6)
        result: Tensor = self.table(flat, offsets, per_sample_weights=weights / norms[owner]) + self.bias
        return result


def _unique(text: str) -> Buckets:
    return np.unique(np.concatenate(buckets_of(text)))


def _labelled(examples: list[Example], kind: str) -> tuple[list[str], Tensor]:
    texts, labels = [], []
    for example in examples:
        risk: RiskLevel | None = example.prompt_risk if kind == "prompts" else example.answer_risk
        text = example.prompt if kind == "prompts" else example.answer_text
        if risk is not None and text:
            texts.append(text)
            labels.append(RISK_LEVELS.index(risk))
    return texts, torch.tensor(labels)


def fit(examples: list[Example], kind: str, seed: int) -> Linear:
    rng = random.Random(seed)
    drawn = [e for e in examples for _ in range(int(share_of(e.source) + rng.random()))]
    texts, labels = _labelled(drawn, kind)
    features = [_unique(text) for text in texts]
    model = Linear()
    seen = np.bincount(np.concatenate(features), minlength=BUCKETS)
    # A bucket seen once says nothing that lasts.
    weights = np.where(seen > 1, np.log((1 + len(texts)) / (1 + seen)) + 1, 0.0)
    model.weights.copy_(torch.from_numpy(weights))  # type: ignore[operator]
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(PASSES):
        order = torch.randperm(len(texts)).tolist()
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            loss = nn.functional.cross_entropy(model([features[i] for i in chosen]), labels[chosen])
            optimizer.zero_grad()
            (loss + 1e-6 * model.table.weight.pow(2).sum()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def calibrate(model: Linear, benign: list[str], alarms: dict[int, float]) -> None:
    """Shift Unsafe, then Controversial, until the given share of benign texts is flagged."""
    logits = _logits(model, benign)
    with torch.no_grad():
        margin = logits[:, UNSAFE] - torch.maximum(logits[:, SAFE], logits[:, CONTROVERSIAL])
        model.bias[UNSAFE] -= torch.quantile(margin, 1 - alarms[UNSAFE])
        logits = _logits(model, benign)
        both = logits[:, CONTROVERSIAL] - logits[:, SAFE]
        model.bias[CONTROVERSIAL] -= torch.quantile(both, 1 - alarms[CONTROVERSIAL])


def _logits(model: Linear, texts: list[str]) -> Tensor:
    with torch.no_grad():
        parts = [[_unique(text) for text in texts[i : i + BATCH]] for i in range(0, len(texts), BATCH)]
        return torch.cat([model(part) for part in parts])


def verdicts(model: Linear, texts: list[str]) -> list[Verdict]:
    logits = _logits(model, texts)
    scores = 1 - logits.softmax(-1)[:, SAFE]
    return [Verdict(int(level), float(score)) for level, score in zip(logits.argmax(-1), scores, strict=True)]


def answer_opinions(examples: list[Example], seed: int) -> Opinions:
    """What the baseline thinks of each answer that has one label: of each half by the model fitted on the other."""
    judged = [e for e in examples if len(e.answer) == 1 and not e.source.startswith("authored")]
    rng = random.Random(seed)
    side_of = {text: rng.randrange(2) for text in sorted({e.answer_text for e in judged})}
    opinions: Opinions = {}
    for side in (0, 1):
        model = fit([e for e in judged if side_of[e.answer_text] != side], "answers", seed)
        texts = [text for text, own in side_of.items() if own == side]
        chances = _logits(model, texts).softmax(-1).tolist() if texts else []
        opinions.update(zip(texts, map(tuple, chances), strict=True))
    return opinions


def token_opinions(model: Linear) -> NDArray[np.float32]:
    """(RANKS, 2): what each token by itself adds to Unsafe and to Controversial against Safe, in spreads.

    0 for tokens that the model has not seen, or whose lower-cased text is not one token.
    """
    opinions = np.zeros((RANKS, 2), np.float32)
    lowered = encode_many([(text or "").lower() for text in token_texts()])
    single = np.array([ids[0] if len(ids) == 1 else -1 for ids in lowered], dtype=np.int64)
    known = np.flatnonzero(single >= 0)
    buckets = torch.from_numpy(_unigram_buckets(single[known]))
    weights: Tensor = model.weights  # type: ignore[assignment]
    with torch.no_grad():
        rows = model.table.weight[buckets] * weights[buckets, None]
    opinions[known] = (rows[:, [UNSAFE, CONTROVERSIAL]] - rows[:, [SAFE]]).numpy()
    spread = opinions[opinions.any(1)].std(0) if opinions.any() else np.ones(2)
    return np.asarray(np.clip(opinions / spread, -STRONGEST, STRONGEST), dtype=np.float32)
