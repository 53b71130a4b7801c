"""The embedded guard: a small Qwen3Guard that ships inside the package. Demo grade, never protection.

`weights.safetensors` holds the checkpoint in a compressed form. `load` expands it once into the
tensors of an ordinary Qwen3Guard-Stream checkpoint, so the engine has one path for every guard.
How it was trained and what it scores: `MODEL_CARD.md`, and `training/` in the source tree.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

Tensors = dict[str, NDArray[Any]]

FOLDER = Path(__file__).parent
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
EMBEDDING = "model.embed_tokens.weight"
# In config.json beside the ordinary keys; `load` takes it out again.
DIGEST_KEY = "weights_sha256"


class EmbeddedGuardError(Exception):
    """The files of the embedded guard are missing or are not the ones that were shipped."""


def load(folder: Path = FOLDER) -> tuple[dict[str, Any], Tensors]:
    """Return (config, tensors) of an ordinary Qwen3Guard-Stream checkpoint, float32.

    Raises EmbeddedGuardError when a file is missing, damaged, or does not belong to the other.
    """
    config, digest = _read_config(folder / CONFIG)
    parts = _read_parts(folder / WEIGHTS, digest)
    try:
        return config, expand(parts, int(config["vocab_size"]))
    except (KeyError, IndexError, ValueError) as exc:
        raise EmbeddedGuardError(f"{folder / WEIGHTS} does not fit {CONFIG}: {exc}; reinstall weir") from exc


def _read_config(path: Path) -> tuple[dict[str, Any], str]:
    try:
        config = json.loads(path.read_bytes())
        return config, config.pop(DIGEST_KEY)
    except OSError as exc:
        raise EmbeddedGuardError(f"the embedded guard's {path} cannot be read: {exc}; reinstall weir") from exc
    except (ValueError, KeyError, AttributeError, TypeError) as exc:
        raise EmbeddedGuardError(f"the embedded guard's {path} is damaged: {exc!r}; reinstall weir") from exc


def _read_parts(path: Path, digest: str) -> Tensors:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise EmbeddedGuardError(f"the embedded guard's {path} cannot be read: {exc}; reinstall weir") from exc
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise EmbeddedGuardError(
            f"the embedded guard's {path} is damaged: sha256 {found[:12]}, {CONFIG} says {digest[:12]}; reinstall weir"
        )
    try:
        return load_tensors(data)
    except SafetensorError as exc:
        raise EmbeddedGuardError(f"the embedded guard's {path} is not a safetensors file: {exc}") from exc


def expand(parts: Tensors, vocab_size: int) -> Tensors:
    """Compressed parts -> checkpoint tensors."""
    tensors: Tensors = {
        name: part.astype(np.float32) for name, part in parts.items() if not name.startswith("embedding.")
    }
    tensors[EMBEDDING] = _expand_embedding(parts, vocab_size)
    return tensors


def _expand_embedding(parts: Tensors, vocab_size: int) -> NDArray[np.float32]:
    """Frequent tokens have a row of their own, in int8 with a scale; the others are product-quantised.

    `embedding.codes[i, g]` picks one of 256 short vectors for the g-th group of columns.
    """
    ids, rows, scales = parts["embedding.ids"], parts["embedding.rows"], parts["embedding.scales"]
    codes, codebook = parts["embedding.codes"], parts["embedding.codebook"].astype(np.float32)
    table = np.zeros((vocab_size, rows.shape[1]), dtype=np.float32)
    is_own = np.zeros(vocab_size, dtype=bool)
    is_own[ids] = True
    others = np.flatnonzero(~is_own)[: len(codes)]  # the padding rows after the last token stay zero
    groups, _, width = codebook.shape
    picked = codebook.reshape(groups * 256, width)[codes + np.arange(groups, dtype=np.int32) * 256]
    table[others] = picked.reshape(len(codes), groups * width)
    table[ids] = rows.astype(np.float32) * scales.astype(np.float32)[:, None]
    return table
