"""How the guard service runs: its sizes, its deadlines, and the texts that prove it works."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from proxy.guard.limits import Limits
from proxy.risk import RiskLevel

# <|im_start|>user\nHello<|im_end|>\n in the Qwen3 vocabulary: judged at the second last token.
GREETING = (151644, 872, 198, 9707, 151645, 198)


@dataclass(frozen=True, slots=True)
class Canary:
    """A text for the health check, as ids, with the verdict it must have (None: any)."""

    ids: Sequence[int] = GREETING
    read: int = 4
    level: RiskLevel | None = None


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """How the engine runs. Every wait and every buffer of it is bounded by one of these."""

    threads: int | None = None  # cores of the engine; None: see `runner.use_threads`
    window: int | None = None  # tokens of one stream; None: what the model was trained for
    kv_bytes: int | None = None  # memory for streams; None: by `kv_share`
    kv_share: float | None = None  # of the free memory; None: a quarter (GPU: three quarters)
    kv_dtype: Literal["auto", "fp8"] = "auto"  # of the streams' memory; fp8 holds twice the streams, GPU only
    cuda_graphs: bool = True  # GPU: a step is one call; off, every operation is launched by itself
    verdict_seconds: float = 5.0  # from feeding tokens to their verdicts
    open_seconds: float = 30.0  # from opening to the prompt's verdict, waiting for room included
    health_seconds: float = 5.0
    hang_seconds: float = 15.0  # an engine in a process of its own that is silent for longer is replaced
    limits: Limits = field(default_factory=Limits)
    canaries: tuple[Canary, ...] = (Canary(),)


def default_threads(spare: int = 1) -> int:
    """All cores but `spare`, which is for the event loop: waiting for a busy core costs more than it adds."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores - spare))
