"""What a benchmark finds out. Times are milliseconds, None: not measured."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Capacity:
    """The most streams, each with so many tokens before it, whose tokens have their verdicts in time."""

    context: int
    way: str
    streams: int
    p95_ms: float  # at that many streams, of the slowest seed; 0 when not even one is carried
    limit: str  # what ended the search: "lag", "memory", or "search" when the benchmark tries no more


@dataclass(frozen=True, slots=True)
class StepTime:
    """Streams that each have `history` tokens and are fed `chunk` more at once."""

    streams: int
    chunk: int
    history: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    tokens_a_second: float
    tokens_a_core_second: float  # of CPU time


@dataclass(frozen=True, slots=True)
class TokenTime:
    """One more token of one stream, by way; medians."""

    history: int
    ms: dict[str, float]
    core_ms: dict[str, float]  # of CPU time, which a busy machine distorts less


@dataclass(frozen=True, slots=True)
class DoorSpeed:
    """Through the whole service: every stream feeds its next chunk when the last one is judged."""

    streams: int
    chunk: int
    tokens_a_second: float
    # Of CPU time, which a busy machine does not distort; None: the engine is in a process of its own.
    tokens_a_core_second: float | None
    p50_ms: float  # from asking to the verdict
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Parity:
    """Verdicts of one guard in two number formats."""

    tokens: int
    same: int  # of them with the same level
    largest_difference: float  # of that level's probability


@dataclass(slots=True)
class Figures:
    about: dict[str, Any] = field(default_factory=dict)  # what was measured, where, and how to repeat it
    tokens: list[TokenTime] = field(default_factory=list)
    steps: list[StepTime] = field(default_factory=list)
    door: list[DoorSpeed] = field(default_factory=list)
    capacity: list[Capacity] = field(default_factory=list)
    parity: Parity | None = None  # to float32, where the guard runs in another format
    skipped: list[str] = field(default_factory=list)  # sentences: what is missing and why

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
