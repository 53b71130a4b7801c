"""A checkpoint -> GuardModel: config.json and safetensors, from a folder, the hub, or the package.

Nothing of a checkpoint is ever executed: no remote code, no pickle. Every tensor's name and shape is
checked against config.json before the first one is read.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from proxy.guard import embedded
from proxy.guard.architecture import Architecture, ConfigError, Shapes, read_architecture, tensor_shapes
from proxy.guard.files import CheckpointError as CheckpointError
from proxy.guard.files import Files, find_files
from proxy.guard.model import GuardModel, Heads, Layer, foldable
from proxy.guard.pins import HASH_BLOCK_BYTES
from proxy.guard.protocol import GuardInfo

EMBEDDED = "embedded"
# Tensors that other programs need and this one does not.
IGNORED = re.compile(r"lm_head\.weight|.*\.rotary_emb\.inv_freq")
FLOATS = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INT8 = "int8"


@dataclass(frozen=True, slots=True)
class LoadedGuard:
    model: GuardModel
    info: GuardInfo


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint before its weights are read. `read` returns one tensor by name."""

    name: str
    revision: str
    config: Mapping[str, Any]
    shapes: Shapes
    read: Callable[[str], Tensor]


def load_guard(
    model: str = EMBEDDED,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    sha256: Mapping[str, str] | None = None,
) -> LoadedGuard:
    """Load "embedded", a folder, or a hub id.

    `revision` pins the hub commit, branch or tag; for a folder it is the expected start of the weights' SHA-256.
    `dtype` is "auto" (bfloat16 where the device computes it natively and the checkpoint is in it, else
    float32), "float32", "bfloat16", "float16", or "int8": float32 with 8-bit matrices, on a CPU.
    `device` is "cpu", "cuda", "cuda:1", or "auto".
    `sha256` pins the files that are read, by name: see `pins.pin_fault`.
    Raises CheckpointError.
    """
    with ExitStack() as files:
        return build_guard(_open(model, revision, sha256 or {}, files), dtype, find_device(device))


def build_guard(checkpoint: Checkpoint, dtype: str, device: torch.device) -> LoadedGuard:
    """Check a checkpoint and read its weights onto the device. Raises CheckpointError."""
    if dtype not in (*FLOATS, INT8):
        raise CheckpointError(f"dtype {dtype!r} is not one of {', '.join((*FLOATS, INT8))}")
    if dtype == INT8 and device.type != "cpu":
        raise CheckpointError(f"dtype int8 is for a CPU; on {device} use bfloat16")
    architecture = _checked(checkpoint)
    try:
        built = build(architecture, checkpoint, FLOATS["float32" if dtype == INT8 else dtype], device)
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"{checkpoint.name}: the weights cannot be read: {exc}") from exc
    if dtype == INT8:
        built.layers = [layer.rounded() for layer in built.layers]
    return LoadedGuard(built, GuardInfo(checkpoint.name, checkpoint.revision, architecture.window))


def check_files(files: Files) -> Architecture:
    """Of a checkpoint that somebody else will load: what `build_guard` would find out. Raises CheckpointError."""
    with ExitStack() as opened:
        return _checked(_open_files(files, opened))


def _checked(checkpoint: Checkpoint) -> Architecture:
    try:
        architecture = read_architecture(checkpoint.config)
    except ConfigError as exc:
        raise CheckpointError(f"{checkpoint.name}: {exc}") from exc
    _check(checkpoint, tensor_shapes(architecture))
    return architecture


def _open(model: str, revision: str | None, pins: Mapping[str, str], files: ExitStack) -> Checkpoint:
    if model != EMBEDDED:
        return _open_files(find_files(model, revision, pins), files)
    if pins:
        raise CheckpointError("guard.sha256 pins the files of a folder or a hub model; the embedded guard has none")
    return _open_embedded()


def _open_embedded() -> Checkpoint:
    try:
        config, arrays = embedded.load()
    except embedded.EmbeddedGuardError as exc:
        raise CheckpointError(str(exc)) from exc
    digest = hashlib.sha256()
    for name in sorted(arrays):
        # Small tensors name the weights well enough; hashing the expanded embedding would slow every start.
        if arrays[name].nbytes <= HASH_BLOCK_BYTES:
            digest.update(arrays[name].tobytes())
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    return Checkpoint(EMBEDDED, digest.hexdigest()[:12], config, shapes, lambda name: torch.from_numpy(arrays[name]))


def _open_files(found: Files, files: ExitStack) -> Checkpoint:
    name = found.name
    handles: dict[str, Any] = {}
    shapes: Shapes = {}
    for path in found.weights:
        try:
            handle = files.enter_context(safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as exc:
            raise CheckpointError(f"{name}: {path.name} is truncated or not a safetensors file: {exc}") from exc
        names: list[str] = handle.keys()
        for key in names:
            handles[key] = handle
            shapes[key] = tuple(handle.get_slice(key).get_shape())
    return Checkpoint(name, found.revision, found.config, shapes, lambda key: handles[key].get_tensor(key))


def _check(checkpoint: Checkpoint, expected: Shapes) -> None:
    """Every expected tensor in its shape, and none that would be silently left out."""
    for name, shape in expected.items():
        found = checkpoint.shapes.get(name)
        if found is None:
            raise CheckpointError(f"{checkpoint.name}: tensor {name} is missing; expected shape {shape}")
        if found != shape:
            raise CheckpointError(f"{checkpoint.name}: tensor {name} has shape {found}; config.json makes it {shape}")
    unknown = sorted(name for name in checkpoint.shapes if name not in expected and not IGNORED.fullmatch(name))
    if unknown:
        raise CheckpointError(
            f"{checkpoint.name}: tensor {unknown[0]} (shape {checkpoint.shapes[unknown[0]]}) is not part of this "
            f"architecture; {len(unknown)} such tensors"
        )


def build(shape: Architecture, checkpoint: Checkpoint, dtype: torch.dtype | None, device: torch.device) -> GuardModel:
    """Checked tensors -> the engine's layout, on the device. `dtype` None: see `load_guard`."""
    target = dtype or _natural_dtype(checkpoint.read("model.norm.weight").dtype, device)

    def read(name: str) -> Tensor:
        tensor = checkpoint.read(name)
        if not tensor.is_floating_point():
            raise CheckpointError(f"{checkpoint.name}: tensor {name} is {tensor.dtype}; expected a floating type")
        return tensor.to(device=device, dtype=target)

    def read_heads(prefix: str, risks: tuple[int, ...], categories: tuple[int, ...]) -> Heads:
        stem = prefix + "risk_level_category_"
        risk = read(prefix + "risk_level_head.weight")[list(risks)]
        category = read(prefix + "category_head.weight")[list(categories)]
        return Heads(read(stem + "pre.weight"), read(stem + "layernorm.weight"), torch.cat((risk, category)))

    return GuardModel(
        shape,
        read("model.embed_tokens.weight"),
        [_build_layer(shape, read, f"model.layers.{index}.") for index in range(shape.layers)],
        read("model.norm.weight"),
        read_heads("", shape.risk_order, shape.category_order),
        read_heads("query_", shape.prompt_risk_order, shape.prompt_category_order),
    )


def _build_layer(shape: Architecture, read: Callable[[str], Tensor], layer: str) -> Layer:
    attention = layer + "self_attn."

    def pairs(tensor: Tensor) -> Tensor:
        """Each head's rows in the order 0, half, 1, half + 1, ...: rotated pairs become neighbours."""
        split = tensor.view(-1, 2, shape.head_dim // 2, *tensor.shape[1:])
        return split.transpose(1, 2).reshape(tensor.shape)

    def stack(kind: str) -> Tensor:
        q, k, v = (read(f"{attention}{name}_proj.{kind}") for name in "qkv")
        return torch.cat((pairs(q), pairs(k), v))

    # head_dim ** 0.5 belongs to both (see GuardModel); the softmax scale takes it from q again.
    q_norm = pairs(read(attention + "q_norm.weight").float())
    k_norm = pairs(read(attention + "k_norm.weight").float()) * shape.head_dim**0.5
    input_norm = read(layer + "input_layernorm.weight")
    post_norm = read(layer + "post_attention_layernorm.weight")
    qkv = stack("weight")
    gate_up = torch.cat((read(layer + "mlp.gate_proj.weight"), read(layer + "mlp.up_proj.weight")))
    is_folded = foldable(qkv.dtype)
    if is_folded:
        qkv = qkv * (input_norm * shape.hidden**0.5)
        gate_up = gate_up * (post_norm * shape.hidden**0.5)
    return Layer(
        input_norm=None if is_folded else input_norm,
        qkv=qkv,
        qkv_bias=stack("bias") if shape.attention_bias else None,
        qk_norm=torch.cat((q_norm.expand(shape.heads, -1), k_norm.expand(shape.kv_heads, -1))),
        output=read(attention + "o_proj.weight"),
        output_bias=read(attention + "o_proj.bias") if shape.attention_bias else None,
        post_norm=None if is_folded else post_norm,
        gate_up=gate_up,
        down=read(layer + "mlp.down_proj.weight"),
    )


def find_device(name: str) -> torch.device:
    """A device by name, or the best there is for "auto". Raises CheckpointError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise CheckpointError(f"device {name!r} does not exist") from exc
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"device {name!r} was asked for, but torch finds no GPU")
    return device


def _natural_dtype(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The stored type where the device computes it natively, else float32."""
    if device.type == "cpu":
        has_bfloat16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
        return torch.bfloat16 if stored == torch.bfloat16 and has_bfloat16 else torch.float32
    return stored
