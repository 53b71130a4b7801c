"""The scheduler's sizes and waits, each a bound on what one stream may cost another."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a step, in tokens, and how long things may wait, in seconds."""

    piece: int = 512  # of long jobs, all together, in one step: what a short job may have to wait for
    short: int = 64  # up to this many tokens a job is taken whole
    step: int = 1024  # of short jobs in one step
    admission_seconds: float = 5.0  # an open without room is refused after it
    idle_seconds: float = 10.0  # a stream silent for this long gives its memory up for a new one
    stall_seconds: float = 1.0  # a stream whose growth finds no room for this long goes before all others
    fair_seconds: float = 0.5  # an owner below its share of memory is let in after it, at the others' cost
    kept_tokens: int = 0  # of closed prompts, kept for their owner's next request; 0: none
    kept_seconds: float = 60.0  # for at most this long

    def __post_init__(self) -> None:
        if not 0 < self.short <= self.step or self.piece < 1:
            raise ValueError(f"a step of {self.step} and a piece of {self.piece} tokens leave jobs out for ever")
