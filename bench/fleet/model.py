"""How long a step takes on a GPU, and what memory a stream takes there. A model: nothing of it has run on a GPU.

A step reads the weights and the keys and values of every stream in it, computes its tokens, and costs its host what
`host` measured. Reading and computing are added up, as if neither hid behind the other.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from proxy.guard.limits import Limits
from proxy.guard.packing import bucket_sizes
from proxy.guard.pages import PAGE_TOKENS

Numbers: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

LIMITS = Limits()
BUCKETS = np.array(bucket_sizes(LIMITS.step + LIMITS.piece))
BYTES = 2  # a number, bfloat16


@dataclass(frozen=True, slots=True)
class Shape:
    """A guard, by the configuration of the Qwen3 model of its size."""

    name: str
    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int = 151_936
    kv_heads: int = 8
    head_dim: int = 128

    @property
    def matrices(self) -> int:
        """Parameters that every token goes through; of the embedding it reads a row."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def weight_bytes(self) -> int:
        return BYTES * (self.matrices + self.vocabulary * self.hidden)

    @property
    def kv_bytes(self) -> int:
        """A token."""
        return 2 * BYTES * self.layers * self.kv_heads * self.head_dim

    @property
    def attention_flops(self) -> int:
        """Of a token, for each token that it looks at."""
        return 4 * self.layers * self.heads * self.head_dim


SHAPES = (
    Shape("0.6B", 1024, 28, 16, 3072),
    Shape("4B", 2560, 36, 32, 9728),
    Shape("8B", 4096, 36, 32, 12288),
)


@dataclass(frozen=True, slots=True)
class Host:
    """Microseconds of a step on the engine's host, by `python -m bench.fleet.host`."""

    step: float = 146.0
    question: float = 12.0
    token: float = 0.3


@dataclass(frozen=True, slots=True)
class Machine:
    """A GPU of the H100's size, and its host. `efficiency` is the share of its limits that the kernels reach."""

    bandwidth: float = 3.0e12  # bytes a second
    flops: float = 798e12  # a second
    memory: float = 80e9
    reserve: float = 4e9  # for torch and a step's work space
    efficiency: float = 0.5
    launch: float = 100e-6  # of a step: copy to it, start a graph, copy back
    host: Host = Host()
    hop: float = 100e-6  # between a proxy and an engine, one way

    def kv_tokens(self, shape: Shape) -> int:
        """Tokens of all streams that its memory holds, in whole pages."""
        free = self.memory - self.reserve - shape.weight_bytes
        return int(free // (shape.kv_bytes * PAGE_TOKENS)) * PAGE_TOKENS

    def gpu_seconds(self, shape: Shape, tokens: Ints, read: Numbers, looked: Numbers) -> Numbers:
        """Of steps: their tokens, the tokens whose keys they read, and pairs of a token and one that it looks at."""
        padded = BUCKETS[np.minimum(np.searchsorted(BUCKETS, tokens), len(BUCKETS) - 1)]
        moved = BYTES * shape.matrices + shape.kv_bytes * read
        flops = 2.0 * shape.matrices * padded + shape.attention_flops * looked
        return self.launch + (moved / self.bandwidth + flops / self.flops) / self.efficiency

    def host_seconds(self, questions: Ints, tokens: Ints) -> Numbers:
        return (self.host.step + self.host.question * questions + self.host.token * tokens) * 1e-6


H100 = Machine()


def pages(tokens: Ints) -> Ints:
    """Tokens of the pages that hold so many."""
    return -(-tokens // PAGE_TOKENS) * PAGE_TOKENS


class Work:
    """Of a step of each engine."""

    def __init__(self, engines: int) -> None:
        self.questions, self.tokens = np.zeros((2, engines), np.int64)
        self.read, self.looked = np.zeros((2, engines))

    def add(self, engine: Ints, counts: Ints, context: Ints) -> None:
        """Questions of so many tokens, the last of which look at `context`."""
        most = len(self.questions)
        self.questions += np.bincount(engine, minlength=most)
        self.tokens += np.bincount(engine, counts, most).astype(np.int64)
        self.read += np.bincount(engine, context, most)
        self.looked += np.bincount(engine, counts * (context - (counts - 1) / 2), most)
