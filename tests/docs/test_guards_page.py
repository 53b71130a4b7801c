"""The memory that docs/guards.md names is what the shapes of the checkpoints come to."""

import re
from math import prod
from pathlib import Path

import pytest

from proxy.guard import embedded
from proxy.guard.architecture import Architecture, read_architecture, tensor_shapes

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "guards.md").read_text()
# hidden, layers, heads, KV heads, head size, intermediate: as the configurations of the Qwen3 models of that size say.
PUBLISHED = {
    "Qwen3Guard-Stream-0.6B": (1024, 28, 16, 8, 128, 3072),
    "Qwen3Guard-Stream-4B": (2560, 36, 32, 8, 128, 9728),
    "Qwen3Guard-Stream-8B": (4096, 36, 32, 8, 128, 12288),
}
TOKENS = 4096


def architecture_of(name: str) -> Architecture:
    if name == "embedded":
        return read_architecture(embedded.load()[0])
    classes = tuple(range(3)), tuple(range(8)), tuple(range(3)), tuple(range(9))
    # The heads' own width changes nothing that is shown: 512 stands for it.
    return Architecture(*PUBLISHED[name], 151936, 32768, 1e-6, 1e6, 1.0, False, 512, *classes)


def row_of(name: str) -> str:
    shape = architecture_of(name)
    parameters = sum(prod(one) for one in tensor_shapes(shape).values())
    digits = 2 if parameters < 1e8 else 1
    weights = [f"{parameters * size / 1e9:.{digits}f} GB" for size in (2, 4)]
    token = shape.kv_bytes_per_token(2)
    cache = [f"{token / 2**10:.0f} KiB", f"{token * TOKENS / 2**20:.0f} MiB", f"{token * TOKENS * 100 / 2**30:.1f} GiB"]
    return " | ".join([f"| {name}", *weights, *cache]) + " |"


@pytest.mark.parametrize("name", ["embedded", *PUBLISHED])
def test_a_row_is_what_the_shapes_come_to(name: str) -> None:
    assert row_of(name) in PAGE.splitlines()


def test_no_row_is_left_unchecked() -> None:
    rows = re.findall(r"^\| (\S+) \| [\d.]+ GB", PAGE, re.MULTILINE)
    assert rows == ["embedded", *PUBLISHED]
