"""The flags of `weir bench guard`. No torch here: `weir --help` reads them too."""

import argparse
from dataclasses import dataclass, replace
from typing import Any

from proxy.benchmark.sizes import QUICK, TABLES, Pace, Sizes

EXAMPLES = """\
examples:
  weir bench guard                                    # the guard of weir.toml, or the embedded one
  weir bench guard --quick                            # a first impression
  weir bench guard --guard random-0.6b --device cuda --only steps capacity --contexts 512 8000 --json
  weir bench guard --guard Qwen/Qwen3Guard-Stream-0.6B --only tokens --histories 64 4096

random-tiny, random-0.6b, random-4b and random-8b are guards of those sizes with random weights: as fast
as the real ones, without a download. Beside Weir the model card's own algorithm and a cache a stream are
measured where transformers is installed. Capacity is the most streams, each with tokens arriving at 30
to 60 a second, whose verdicts lag at most 20 ms at the 95th percentile.
"""
LISTS = {
    "streams": "streams in a step",
    "chunks": "tokens that each of them feeds",
    "histories": "tokens before one more token",
    "contexts": "tokens before a capacity measurement",
}
VALUES = {
    "history": "tokens before a step",
    "seconds": "how long a capacity measurement's load lasts; default: 10",
    "seeds": "how many such loads must be carried; default: 2",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the flags say; None: not given."""

    only: list[str] | None = None
    streams: list[int] | None = None
    chunks: list[int] | None = None
    history: int | None = None
    histories: list[int] | None = None
    contexts: list[int] | None = None
    seconds: float | None = None
    seeds: int | None = None
    process: bool | None = None
    quick: bool = False
    json: bool = False

    @property
    def sizes(self) -> Sizes:
        base = QUICK if self.quick else Sizes()
        pace = Pace(self.seconds or base.pace.seconds, self.seeds or base.pace.seeds)
        given: dict[str, Any] = {
            "tables": self.only,
            "streams": self.streams,
            "chunks": self.chunks,
            "history": self.history,
            "histories": self.histories,
            "contexts": self.contexts,
        }
        return replace(base, pace=pace, **{name: value for name, value in given.items() if value is not None})


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", choices=["guard"], help="what to measure")
    command.add_argument("--only", nargs="+", choices=TABLES, help="tables to measure; default: all")
    for key, description in LISTS.items():
        command.add_argument(f"--{key}", nargs="+", type=count, metavar="N", help=description)
    for key, description in VALUES.items():
        command.add_argument(f"--{key}", type=count, metavar="N", help=description)
    command.add_argument(
        "--process",
        action=argparse.BooleanOptionalAction,
        help="at the door: the engine in a process of its own, or in a thread [guard.process]",
    )
    command.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")


def wanted_of(arguments: argparse.Namespace) -> Wanted:
    return Wanted(**{name: getattr(arguments, name) for name in Wanted.__slots__})


def count(text: str) -> int:
    """An argument's type. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)
