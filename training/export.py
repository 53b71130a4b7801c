"""A trained guard -> the two files that ship: compressed weights and `config.json`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_parts
from safetensors.numpy import save

from proxy.guard.embedded import CONFIG, DIGEST_KEY, WEIGHTS, load
from proxy.risk import PROMPT_CATEGORIES, RESPONSE_CATEGORIES, RISK_LEVELS
from training.model import Embedding, Guard
from training.vocabulary import TOKENS

GROUP = 4  # columns that share one code: a quarter of a byte a number
CENTROIDS = 256
KMEANS_SAMPLE, KMEANS_ROUNDS = 20_000, 12

Array = NDArray[Any]


def export(guard: Guard, config: dict[str, Any], folder: Path) -> None:
    """Write the compressed guard; `load(folder)` gives it back as an ordinary checkpoint."""
    parts = _embedding_parts(guard.model.embed_tokens)
    for name, parameter in guard.named_parameters():
        if "embed_tokens" not in name:
            parts[name] = parameter.detach().numpy().astype(np.float16)
    _write(parts, {**config, **_label_maps()}, folder)


def export_risk_heads(guard: Guard, folder: Path) -> None:
    """Put both risk heads of `guard` into a compressed guard, and change nothing else of it."""
    parts = load_parts((folder / WEIGHTS).read_bytes())
    for name, head in (
        ("risk_level_head", guard.risk_level_head),
        ("query_risk_level_head", guard.query_risk_level_head),
    ):
        parts[f"{name}.weight"] = head.weight.detach().numpy().astype(np.float16)
    _write(parts, json.loads((folder / CONFIG).read_text()), folder)


def _write(parts: dict[str, Array], config: dict[str, Any], folder: Path) -> None:
    data = save({name: np.ascontiguousarray(part) for name, part in sorted(parts.items())})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(data)
    (folder / CONFIG).write_text(json.dumps({**config, DIGEST_KEY: hashlib.sha256(data).hexdigest()}, indent=2) + "\n")


def reload(folder: Path) -> tuple[Guard, dict[str, Any]]:
    """The guard exactly as it ships, on an ordinary embedding: what every figure is measured on."""
    config, tensors = load(folder)
    guard = Guard(config, torch.nn.Embedding(config["vocab_size"], config["hidden_size"]), dropout=0.0)
    guard.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    return guard.eval(), config


def _label_maps() -> dict[str, dict[str, str]]:
    def numbered(words: tuple[Any, ...]) -> dict[str, str]:
        return {str(index): str(word) for index, word in enumerate(words)}

    return {
        "response_risk_level_map": numbered(RISK_LEVELS),
        "response_category_map": numbered(RESPONSE_CATEGORIES),
        "query_risk_level_map": numbered(RISK_LEVELS),
        "query_category_map": numbered(PROMPT_CATEGORIES),
    }


def _embedding_parts(embedding: torch.nn.Module) -> dict[str, Array]:
    assert isinstance(embedding, Embedding)
    with torch.no_grad():
        table = embedding(torch.arange(TOKENS)).numpy().astype(np.float32)
        own = embedding.index.nonzero().flatten().numpy().astype(np.int32)
    is_own = np.zeros(TOKENS, dtype=bool)
    is_own[own] = True
    codes, codebook = _product_quantise(table[~is_own])
    scales = np.maximum(np.abs(table[own]).max(1) / 127, 1e-6).astype(np.float16)
    rows = np.clip(np.round(table[own] / scales[:, None].astype(np.float32)), -127, 127).astype(np.int8)
    return {
        "embedding.ids": own,
        "embedding.rows": rows,
        "embedding.scales": scales,
        "embedding.codes": codes,
        "embedding.codebook": codebook.astype(np.float16),
    }


def _product_quantise(rows: Array) -> tuple[Array, Array]:
    """(codes, codebook): each group of columns becomes the number of the nearest of 256 short vectors."""
    rng = np.random.default_rng(3)
    groups = rows.shape[1] // GROUP
    codes = np.zeros((len(rows), groups), dtype=np.uint8)
    codebook = np.zeros((groups, CENTROIDS, GROUP), dtype=np.float32)
    for group in range(groups):
        columns = rows[:, group * GROUP : (group + 1) * GROUP]
        sample = columns[rng.permutation(len(columns))[:KMEANS_SAMPLE]]
        centres = _kmeans(sample, rng)
        codebook[group] = centres
        codes[:, group] = _nearest(columns, centres)
    return codes, codebook


def _nearest(points: Array, centres: Array) -> Array:
    return np.asarray((points @ centres.T - (centres**2).sum(1) / 2).argmax(1))


def _kmeans(points: Array, rng: np.random.Generator) -> Array:
    centres = points[rng.permutation(len(points))[:CENTROIDS]].copy()
    for _ in range(KMEANS_ROUNDS):
        nearest = _nearest(points, centres)
        counts = np.bincount(nearest, minlength=len(centres))
        for column in range(points.shape[1]):
            sums = np.bincount(nearest, weights=points[:, column], minlength=len(centres))
            centres[:, column] = np.where(counts > 0, sums / np.maximum(counts, 1), centres[:, column])
    return centres
