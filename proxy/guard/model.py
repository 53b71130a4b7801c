"""Qwen3 and the two twins of classification heads, in plain torch, over packed tokens.

Tokens of many streams lie one after another in one dimension (T); nothing is padded. How a token
sees its own past is the caller's matter: `attend(layer, q, k, v)` writes the keys and values to the
streams' caches and returns the attention output.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import nan

import torch
from torch import Tensor
from torch.nn import functional

from proxy.guard.architecture import Architecture
from proxy.guard.int8 import Int8Matrix, Matrix

# (layer, q [T, heads, head_dim], k [T, kv_heads, head_dim], v [T, kv_heads, head_dim]) -> [T, heads * head_dim].
# q is already scaled by head_dim ** -0.5.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer. Projections that read the same input are one matrix.

    Rows of q and k, and their norms, are reordered so that the two halves of a rotated pair are
    neighbours: the rotation is then one complex multiplication. Scores do not change.
    """

    input_norm: Tensor | None  # [hidden]; None: multiplied into qkv (see `foldable`)
    qkv: Matrix  # [(heads + 2 * kv_heads) * head_dim, hidden]
    qkv_bias: Tensor | None
    qk_norm: Tensor  # [heads + kv_heads, head_dim], float32, times head_dim ** 0.5; q's rows carry the softmax scale
    output: Matrix  # [hidden, heads * head_dim]
    output_bias: Tensor | None
    post_norm: Tensor | None  # [hidden]; None: multiplied into gate_up
    gate_up: Matrix  # [2 * intermediate, hidden]
    down: Matrix  # [hidden, intermediate]

    def rounded(self) -> "Layer":
        """The same with its matrices in 8 bits."""
        matrices = (self.qkv, self.output, self.gate_up, self.down)
        qkv, output, gate_up, down = (Int8Matrix(matrix) for matrix in matrices if isinstance(matrix, Tensor))
        return replace(self, qkv=qkv, output=output, gate_up=gate_up, down=down)


def foldable(dtype: torch.dtype) -> bool:
    """Whether a norm's weight may be multiplied into the next matrix: only where that rounds nothing away."""
    return dtype == torch.float32


@dataclass(frozen=True, slots=True)
class Heads:
    """Risk and category heads of one role, as one matrix: the first 3 rows are the risk levels."""

    pre: Tensor  # [inner, hidden]
    norm: Tensor  # [inner]
    output: Tensor  # [3 + categories, inner]

    @property
    def width(self) -> int:
        """Numbers in one row of logits: 3 risk levels and the categories."""
        return self.output.shape[0]


class GuardModel:
    """Weights and the forward pass. Holds no stream's state, so one model serves any number."""

    def __init__(
        self,
        architecture: Architecture,
        embedding: Tensor,
        layers: list[Layer],
        final_norm: Tensor,
        response: Heads,
        prompt: Heads,
    ) -> None:
        self.architecture = architecture
        self.embedding = embedding  # [vocabulary, hidden]
        self.layers = layers
        self.final_norm = final_norm
        self.response = response
        self.prompt = prompt
        # x / rms(x) is x * size ** 0.5 / hypot(norm(x), (size * eps) ** 0.5): half the calls, the same numbers.
        self._hidden_floor = torch.tensor((architecture.hidden * architecture.norm_eps) ** 0.5, device=self.device)
        self._head_floor = torch.tensor((architecture.head_dim * architecture.norm_eps) ** 0.5, device=self.device)
        self._rotations = self.rotations(min(architecture.window, 4096))

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    def forward(self, ids: Tensor, positions: Tensor, last: int, attend: Attend) -> Tensor:
        """ids [T], positions [T] (none above `last`) -> final hidden states [T, hidden]."""
        shape = self.architecture
        if last >= len(self._rotations):
            self._rotations = self.rotations(max(last + 1, 2 * len(self._rotations)))
        rotation = self._rotations[positions]
        hidden = functional.embedding(ids, self.embedding)
        for index, layer in enumerate(self.layers):
            hidden = self._attention(index, layer, hidden, rotation, attend)
            hidden = self._feed_forward(layer, hidden)
        return functional.rms_norm(hidden, (shape.hidden,), self.final_norm, shape.norm_eps)

    def logits(self, hidden: Tensor, heads: Heads) -> Tensor:
        """hidden [R, hidden] -> float32 [R, 3 + categories]."""
        inner = functional.linear(hidden, heads.pre)
        inner = functional.rms_norm(inner, (inner.shape[-1],), heads.norm, self.architecture.norm_eps)
        return functional.linear(inner, heads.output).float()

    def probabilities(self, hidden: Tensor, heads: Heads) -> Tensor:
        """hidden [R, hidden] -> float32 [R, 3 + categories]: softmax of the levels, softmax of the categories.

        A row with a logit that is not finite holds NaN, so that nobody can take it for a verdict.
        """
        # The softmax of minus infinity is a proper 0: an overflow towards "Unsafe" would read as certainly Safe.
        logits = torch.nan_to_num(self.logits(hidden, heads), nan=nan, posinf=nan, neginf=nan)
        return torch.cat((logits[:, :3].softmax(-1), logits[:, 3:].softmax(-1)), dim=1)

    def rotations(self, length: int) -> Tensor:
        """Rotations of positions 0 ... length - 1: complex64 [length, 1, head_dim / 2]."""
        shape = self.architecture
        exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.int64).float() / shape.head_dim
        frequencies = 1.0 / (shape.rope_theta**exponents) / shape.rope_factor
        angles = torch.outer(torch.arange(length).float(), frequencies)
        return torch.complex(angles.cos(), angles.sin()).unsqueeze(1).to(self.embedding.device)

    def _attention(self, index: int, layer: Layer, hidden: Tensor, rotation: Tensor, attend: Attend) -> Tensor:
        shape = self.architecture
        qk_heads = shape.heads + shape.kv_heads
        normed = self._normed(hidden, layer.input_norm)
        qkv = linear(normed, layer.qkv, layer.qkv_bias).view(-1, qk_heads + shape.kv_heads, shape.head_dim)
        # Norm and rotation in float32 whatever the weights are: two cheap ops that rounding would hurt most.
        qk = qkv[:, :qk_heads].float()
        qk = qk / torch.hypot(torch.linalg.vector_norm(qk, dim=-1, keepdim=True), self._head_floor) * layer.qk_norm
        pairs = torch.view_as_complex(qk.view(-1, qk_heads, shape.head_dim // 2, 2))
        qk = torch.view_as_real(pairs * rotation).view(-1, qk_heads, shape.head_dim).to(hidden.dtype)
        mixed = attend(index, qk[:, : shape.heads], qk[:, shape.heads :], qkv[:, qk_heads:])
        if layer.output_bias is not None:
            hidden = hidden + layer.output_bias
        return _add_linear(hidden, mixed, layer.output)

    def _feed_forward(self, layer: Layer, hidden: Tensor) -> Tensor:
        normed = self._normed(hidden, layer.post_norm)
        gate, up = linear(normed, layer.gate_up).chunk(2, dim=-1)
        return _add_linear(hidden, functional.silu(gate).mul_(up), layer.down)

    def _normed(self, hidden: Tensor, weight: Tensor | None) -> Tensor:
        if weight is None:
            return hidden / torch.hypot(torch.linalg.vector_norm(hidden, dim=-1, keepdim=True), self._hidden_floor)
        return functional.rms_norm(hidden, (self.architecture.hidden,), weight, self.architecture.norm_eps)


def linear(inputs: Tensor, matrix: Matrix, bias: Tensor | None = None) -> Tensor:
    return matrix(inputs, bias) if isinstance(matrix, Int8Matrix) else functional.linear(inputs, matrix, bias)


def _add_linear(hidden: Tensor, inputs: Tensor, matrix: Matrix) -> Tensor:
    return hidden + matrix(inputs) if isinstance(matrix, Int8Matrix) else torch.addmm(hidden, inputs, matrix.t())
