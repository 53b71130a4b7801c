"""What a benchmark measures: which tables, and how much of each. No torch here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy.benchmark.arrivals import RATES

TABLES = ("tokens", "steps", "door", "capacity")
# At the door: streams that talk at once, and tokens that each of them feeds in all; the lone stream's tokens.
DOOR_STREAMS, DOOR_TOKENS, LONE_TOKENS = 64, 128, 300
PROMPT_TOKENS = 64
WARM_ROUNDS = 3
# One more token: rounds, and calls in a row each round. The first one after another way's finds its memory cold,
# and is not counted.
ROUNDS, IN_A_ROW = 15, 4
STEP_ROUNDS = 60
# No machine that the benchmark knows of carries more.
MOST_STREAMS = 8192


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a load is, and how many different ones a count of streams must carry."""

    seconds: float = 10.0
    seeds: int = 2


@dataclass(frozen=True, slots=True)
class Sizes:
    tables: Sequence[str] = TABLES
    streams: Sequence[int] = (1, 8, 64, 256)  # in a step
    chunks: Sequence[int] = (1, 4, 8)  # tokens that each of them feeds
    history: int = 512  # before a step
    histories: Sequence[int] = (64, 4096)  # before one more token
    contexts: Sequence[int] = (512, 1024, 2048, 4096, 8000)  # before a capacity
    pace: Pace = field(default_factory=Pace)
    most_streams: int = MOST_STREAMS

    @property
    def longest(self) -> int:
        """Tokens that the guard's window must hold."""
        most = {
            "tokens": max(self.histories) + 2 * ROUNDS * IN_A_ROW,
            "steps": self.history + max(self.chunks),
            "door": PROMPT_TOKENS + max(LONE_TOKENS, DOOR_TOKENS, WARM_ROUNDS * max(self.chunks)),
            "capacity": max(self.contexts) + math.ceil(self.pace.seconds * RATES[1]) + 1,
        }
        return max(most[table] for table in self.tables)


QUICK = Sizes(streams=(1, 64), chunks=(1, 8), contexts=(512, 2048), pace=Pace(2.0, 1))
