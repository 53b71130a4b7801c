"""Matrices of 8-bit integers for a CPU: two to five times as fast as float32 at the sizes of real guards, and coarser.

Weights are rounded once, a scale for each row. Inputs are rounded at every call, a scale for each token: torch's
own kernel takes one scale for the whole batch, by which a stream's verdict would depend on its neighbours.
"""

import warnings

import torch
from torch import Tensor


class Int8Matrix:
    """[rows, columns], to be multiplied with from the right as `functional.linear` does."""

    def __init__(self, weight: Tensor) -> None:
        """weight [rows, columns] float32 on the CPU."""
        scales = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12).double()
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            # Deprecated in favour of a library that needs a compiler at run time; torch is pinned to a release with it.
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(rounded, None)
        # A row that spans the whole range: with it the kernel's scale is the same in every batch.
        self._span = torch.zeros(1, weight.shape[1])
        self._span[0, 0], self._span[0, -1] = -1.0, 1.0

    def __call__(self, inputs: Tensor, bias: Tensor | None = None) -> Tensor:
        """[T, columns] and [rows] -> [T, rows], all float32."""
        largest = inputs.abs().amax(dim=1, keepdim=True).clamp_min_(1e-12)
        # A number that is not finite would spoil the scale of all; through `largest` it spoils its own token.
        spanned = torch.cat(((inputs / largest).nan_to_num_(0.0, 0.0, 0.0), self._span))
        # 7 bits of the inputs: with 8, sums overflow where the processor has no VNNI (17-24 % off, measured).
        product: Tensor = torch.ops.quantized.linear_dynamic(spanned, self._packed, True)[:-1] * largest
        return product if bias is None else product + bias


Matrix = Tensor | Int8Matrix
