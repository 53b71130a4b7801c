"""Guards of any shape with random weights: for measuring time and memory, where no verdict is believed."""

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from proxy.guard.architecture import ConfigError, read_architecture, tensor_shapes
from proxy.guard.loader import Checkpoint, CheckpointError, LoadedGuard, build_guard, find_device

COMMON: dict[str, Any] = {
    "architectures": ["Qwen3ForGuardModel"],
    "model_type": "qwen3",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000,
    "max_position_embeddings": 32768,
}
RELEASED: dict[str, Any] = COMMON | {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "guard_inner_size": 512,
}
# config.json of the released sizes, and of one that is computed in no time.
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": COMMON
    | {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 128,
        "vocab_size": 1024,
        "guard_inner_size": 32,
    },
    "0.6b": RELEASED
    | {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 3072},
    "4b": RELEASED
    | {"hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32, "intermediate_size": 9728},
    "8b": RELEASED
    | {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "intermediate_size": 12288},
}


def random_guard(
    shape: str | Mapping[str, Any], *, device: str = "cpu", dtype: str = "auto", seed: int = 0
) -> LoadedGuard:
    """A guard with random weights, made on the device itself.

    `shape` is a name in SHAPES or the contents of a config.json; `device` and `dtype` are as in
    `loader.load_guard`, where "auto" takes the weights for a released checkpoint's (bfloat16).
    One seed gives the same weights on every machine with the same kind of device.
    Raises CheckpointError.
    """
    name, config = (shape, SHAPES.get(shape)) if isinstance(shape, str) else ("custom", shape)
    if config is None:
        raise CheckpointError(f"random shape {name!r} is not one of {', '.join(SHAPES)}")
    try:
        shapes = tensor_shapes(read_architecture(config))
    except ConfigError as exc:
        raise CheckpointError(f"random shape {name!r}: {exc}") from exc
    where = find_device(device)

    def make(tensor: str) -> Tensor:
        """Of a size that keeps activations lively: verdicts differ from token to token."""
        generator = torch.Generator(where).manual_seed(seed ^ zlib.crc32(tensor.encode()))
        size = shapes[tensor]
        noise = torch.randn(size, generator=generator, device=where, dtype=torch.bfloat16)
        if "norm" in tensor:
            return noise.mul_(0.2).add_(1)
        return noise.mul_(size[-1] ** -0.5 if len(size) > 1 else 0.2)

    return build_guard(Checkpoint(f"random-{name}", f"seed-{seed}", config, shapes, make), dtype, where)
