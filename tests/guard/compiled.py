"""Compiles every kernel for an H100 at the released shapes: triton and its assembler need no GPU for that.

    python -m tests.guard.compiled             # a table: registers, bytes beyond them, shared memory
    python -m tests.guard.compiled 8b --json   # one shape, for machines

A process of its own, because triton decides at import whether its kernels are interpreted or compiled.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from proxy.guard import kernels
from proxy.guard.architecture import Architecture, read_architecture
from proxy.guard.paged_model import (
    FP8,
    Launch,
    attention_constants,
    attention_options,
    norm_warps,
    power_of_two,
    tile_rows,
    write_constants,
)
from proxy.guard.random_weights import SHAPES

RELEASED = ["0.6b", "4b", "8b"]
H100 = GPUTarget("cuda", 90, 32)
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32", FP8: "fp8e4nv"}
# What an argument is; pointers to the weights' type are the others.
POINTERS = {
    "items": "i32", "tables": "i32", "positions": "i32", "places": "i32",
    "scales": "fp32", "norm": "fp32", "rotations": "fp32",
}  # fmt: skip
NUMBERS = {"rows": "i32", "size": "i32", "total": "i32", "tokens": "i32", "floor": "fp32", "scale": "fp32"}
# The dtypes that a guard runs in on a GPU: weights, pages.
TYPES = ((torch.bfloat16, torch.bfloat16), (torch.bfloat16, FP8), (torch.float32, torch.float32))


@dataclass(frozen=True)
class Kernel:
    name: str
    function: Any
    constants: dict[str, Any]
    options: dict[str, int]


@dataclass(frozen=True)
class Usage:
    shape: str
    kernel: str
    types: str
    registers: int  # a thread
    stack_bytes: int  # a thread, in local memory: what found no register
    shared_bytes: int  # a program
    warps: int


def kernels_of(shape: Architecture, dtype: torch.dtype, kv_dtype: torch.dtype) -> Iterator[Kernel]:
    launch = Launch()
    if kv_dtype == dtype:  # these do not touch pages
        for label, has_update in (("norm", False), ("residual norm", True)):
            constants = {
                "HAS_UPDATE": has_update, "HAS_WEIGHT": dtype != torch.float32, "ROWS": launch.norm_rows,
                "COLUMNS": power_of_two(shape.hidden),
            }  # fmt: skip
            yield Kernel(label, kernels.norm_kernel, constants, {"num_warps": norm_warps(shape.hidden)})
        yield Kernel("silu", kernels.silu_kernel, {"BLOCK": launch.silu_block}, {"num_warps": 4})
    constants = write_constants(shape, kv_dtype) | {"ROWS": launch.write_rows}
    yield Kernel("write", kernels.write_kernel, constants, {"num_warps": 4})
    for label, rows in zip(("attention, short", "attention, long"), tile_rows(shape, dtype, "cuda"), strict=True):
        constants = attention_constants(shape, dtype, rows)
        yield Kernel(label, kernels.attention_kernel, constants, attention_options(rows, dtype))


def compile_one(kernel: Kernel, dtype: torch.dtype, kv_dtype: torch.dtype) -> Any:
    signature, attributes = {}, {}
    for index, name in enumerate(kernel.function.arg_names):
        if name in kernel.constants:
            signature[name] = "constexpr"
        elif name in NUMBERS:
            signature[name] = NUMBERS[name]
        else:
            stored = kv_dtype if name in ("keys", "values") else dtype
            signature[name] = "*" + POINTERS.get(name, NAMES[stored])
            attributes[(index,)] = [["tt.divisibility", 16]]  # as torch allocates and `packing.Layout` aligns
    source = ASTSource(kernel.function, signature, kernel.constants, attributes)
    return triton.compile(source, target=H100, options=kernel.options)


def usage(compiled: Any) -> tuple[int, int]:
    """Registers and stack bytes of a thread, as the driver's own tool reads them from the binary."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        tool = str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
        command = [tool, "-res-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found is not None, text
    return int(found[1]), int(found[2])


def compile_all(labels: list[str]) -> Iterator[Usage]:
    for label in labels:
        shape = read_architecture(SHAPES[label])
        for dtype, kv_dtype in TYPES:
            for kernel in kernels_of(shape, dtype, kv_dtype):
                compiled = compile_one(kernel, dtype, kv_dtype)
                registers, stack = usage(compiled)
                types = NAMES[dtype] if kv_dtype == dtype else f"{NAMES[dtype]}, pages {NAMES[kv_dtype]}"
                shared, warps = compiled.metadata.shared, compiled.metadata.num_warps
                yield Usage(label, kernel.name, types, registers, stack, shared, warps)


def main() -> None:
    found = []
    for one in compile_all([name for name in sys.argv[1:] if name in SHAPES] or RELEASED):
        found.append(asdict(one))
        if "--json" not in sys.argv:
            print(
                f"{one.shape:5} {one.kernel:17} {one.types:20} {one.registers:4} registers  {one.stack_bytes:4} "
                f"on the stack  {one.shared_bytes:7} bytes shared  {one.warps} warps"
            )
    if "--json" in sys.argv:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
