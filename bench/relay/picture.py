"""How long a chunk is under way, as a picture: the share of chunks that took no longer, for each target."""

from pathlib import Path
from statistics import median

from bench.relay.load import Point
from bench.relay.report import Measured, targets

SHARES = [n / 100 for n in range(101)]


def times(found: list[Measured], target: str, point: str) -> list[float]:
    """At each of SHARES, the median over the rounds, in microseconds."""
    rounds = [one.sample.chunk_times for one in found if (one.target, one.point) == (target, point)]
    rounds = [values for values in rounds if values]
    return [median(values) for values in zip(*rounds, strict=True)]


def draw(found: list[Measured], load: Point, file: Path) -> None:
    """Raises ModuleNotFoundError without matplotlib, OSError."""
    from matplotlib import pyplot  # an optional dependency, and slow to import

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for target in targets(found):
        if values := times(found, target, load.name):
            axes.step(values, SHARES, where="post", label=target)
    axes.set_xscale("log")
    axes.set_xlabel("from the upstream's send to the client's receive, in microseconds")
    axes.set_ylabel("share of chunks")
    axes.set_title(f"{load.streams} streams of {load.rate:g} chunks a second")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
