"""Lags as pictures: against streams an engine, and second by second through the bad days."""

from collections.abc import Sequence
from pathlib import Path

from bench.fleet.capacity import AIMS, Sweep
from bench.fleet.events import AT, Day


def draw_streams(sweeps: Sequence[Sweep], file: Path) -> None:
    """P95 against streams. Raises ModuleNotFoundError without matplotlib, OSError."""
    from matplotlib import pyplot  # an optional dependency, and slow to import

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    colours: dict[str, str] = {}
    for sweep in sweeps:
        name, share = sweep.shape.name, sweep.machine.efficiency
        colour = colours.setdefault(name, f"C{len(colours)}")
        style = "-" if share == 1.0 else "--"
        points = [(point.streams, point.lags[1] * 1e3) for point in sweep.points]
        label = f"{name}, {share:.0%} of the limits, pieces of {sweep.piece}"
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=".", markersize=4)
    for aim in AIMS:
        axes.axhline(aim * 1e3, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("streams of one engine, on average, of the mix")
    axes.set_ylabel("P95 of the lag, ms")
    axes.set_title("A model of an H100: not measured on a GPU")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def draw_days(groups: Sequence[tuple[str, Sequence[Day]]], file: Path) -> None:
    """P95 of each second, a panel a group. Raises as `draw_streams`."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(groups), figsize=(4 * len(groups), 4), layout="constrained", squeeze=False)
    for (title, days), axes in zip(groups, panels[0], strict=True):
        for day in days:
            seconds = [second - AT for second in range(len(day.p95))]
            axes.plot(seconds, [value * 1e3 for value in day.p95], label=day.name)
        axes.axvline(0.0, color="grey", linewidth=0.8, linestyle=":")
        axes.set_yscale("log")
        axes.set_xlabel("seconds since it happened")
        axes.set_title(title)
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    panels[0][0].set_ylabel("P95 of the lags of a second, ms")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
