"""Small random checkpoints in the released layout, and the obvious forward pass to compare with."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from proxy.guard.architecture import read_architecture, tensor_shapes

# Two threads on two busy cores wait for each other longer than these small sums take.
torch.set_num_threads(1)

SMALL: dict[str, Any] = {
    "architectures": ["Qwen3ForGuardModel"],
    "model_type": "qwen3",
    "hidden_act": "silu",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "vocab_size": 400,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "guard_inner_size": 24,
    "num_risk_level": 3,
    "num_category": 8,
    "num_query_risk_level": 3,
    "num_query_category": 9,
    "query_risk_level_map": {"0": "Safe", "1": "Unsafe", "2": "Controversial"},
    "response_risk_level_map": {"0": "Safe", "1": "Unsafe", "2": "Controversial"},
}


def small_config(**changes: Any) -> dict[str, Any]:
    return SMALL | changes


def random_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Weights of a size that keeps activations lively: verdicts differ from token to token."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in tensor_shapes(read_architecture(config)).items():
        noise = torch.randn(shape, generator=generator)
        tensors[name] = 1 + 0.2 * noise if "norm" in name else noise * (shape[-1] ** -0.5 if len(shape) > 1 else 0.2)
    return tensors


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], shards: int = 1) -> Path:
    """One model.safetensors, or several with an index, beside config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[shard::shards]}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def small_checkpoint(folder: Path, **changes: Any) -> Path:
    config = small_config(**changes)
    return write_checkpoint(folder, random_tensors(config), config)


def random_ids(count: int, seed: int = 0, vocabulary: int = 400) -> list[int]:
    ids: list[int] = torch.randint(0, vocabulary, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return ids


class Reference:
    """transformers' Qwen3Model and the heads, whole sequence at once."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        from transformers import Qwen3Config, Qwen3Model

        names = ("rope_scaling", "rope_parameters", "rope_theta", "attention_bias", "head_dim")
        sizes = {key: value for key, value in config.items() if key.endswith(("_size", "_heads", "_layers", "_eps"))}
        extra = {key: config[key] for key in names if config.get(key) is not None}
        self.config = Qwen3Config(**sizes, **extra, max_position_embeddings=config["max_position_embeddings"])
        self.tensors = tensors
        self.model = Qwen3Model(self.config)
        self.model.train(mode=False)
        backbone = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        self.model.load_state_dict(backbone)

    def hidden(self, ids: list[int]) -> Tensor:
        with torch.inference_mode():
            hidden: Tensor = self.model(torch.tensor([ids])).last_hidden_state[0]
        return hidden

    def logits(self, ids: list[int]) -> dict[str, Tensor]:
        """The four heads' logits, each [tokens, classes]."""
        hidden = self.hidden(ids)
        found = {}
        for prefix in ("", "query_"):
            inner = hidden @ self.tensors[prefix + "risk_level_category_pre.weight"].T
            scale = torch.rsqrt(inner.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)
            inner = inner * scale * self.tensors[prefix + "risk_level_category_layernorm.weight"]
            for head in ("risk_level_head", "category_head"):
                found[prefix + head] = inner @ self.tensors[f"{prefix}{head}.weight"].T
        return found

    def rows(self, ids: list[int], prefix: str = "") -> list[list[float]]:
        """Probabilities a token: 3 levels, then the categories."""
        logits = self.logits(ids)
        levels, categories = logits[prefix + "risk_level_head"], logits[prefix + "category_head"]
        rows: list[list[float]] = torch.cat((levels.softmax(-1), categories.softmax(-1)), dim=1).tolist()
        return rows
