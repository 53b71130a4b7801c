"""An evaluation as a PNG: when answers were flagged, how risk grows along them, how prompts score."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from proxy.evaluation.metrics import AHEAD, BINS, HIT, LATER, MISSED, mean_curve, timing
from proxy.evaluation.run import Judged
from proxy.evaluation.summary import delay_of
from proxy.risk import RiskLevel

Panel = Callable[[Axes, Sequence[Judged]], None]

CURVE_TOKENS = 256
SCORE_BINS = 20
PANEL_INCHES = (5.0, 4.2)
UNSAFE_COLOUR, SAFE_COLOUR = "#c0392b", "#2e7d5b"


def draw(sets: Sequence[tuple[str, Sequence[Judged]]], path: Path, title: str) -> None:
    """Draw whatever the sets have; `path` ends in .png. Raises OSError."""
    judged = [one for _, results in sets for one in results]
    panels = [panel for panel, is_wanted in _panels(judged) if is_wanted]
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * max(1, len(panels)), height), dpi=130, layout="constrained")
    figure.suptitle(title, fontsize=10)
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        panel(axes, judged)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")


def _panels(judged: Sequence[Judged]) -> Sequence[tuple[Panel, bool]]:
    """Each panel, and whether there is something to draw in it."""
    answers = [one for one in judged if one.answer is not None]
    unsafe = [one for one in answers if _is_unsafe(one.item.answer_risk)]
    is_annotated = any(one.answer is not None and one.answer.span is not None for one in unsafe)
    return (
        (_timing, is_annotated),
        (_positions, bool(unsafe) and not is_annotated),
        (_curves, bool(answers)),
        (_prompts, any(one.prompt is not None and one.item.prompt_risk is not None for one in judged)),
    )


def _timing(axes: Axes, judged: Sequence[Judged]) -> None:
    answers = [one.answer for one in judged if one.answer is not None and _is_unsafe(one.item.answer_risk)]
    bins = timing([delay_of(answer, answer.flag) for answer in answers if answer.span is not None]).bins
    _bars(axes, bins)
    axes.set_title("First flag, in tokens after the annotated sentence", fontsize=9)


def _positions(axes: Axes, judged: Sequence[Judged]) -> None:
    """No sentence is annotated: count from the start of the answer."""
    answers = [one.answer for one in judged if one.answer is not None and _is_unsafe(one.item.answer_risk)]
    flags = [answer.flag.at for answer in answers]
    bins = timing([None if at < 0 else at + 1 for at in flags]).bins
    _bars(axes, {name: bins[name] for name in bins if name not in (AHEAD, HIT)})
    axes.set_title("First flag of unsafe answers, in tokens from their start", fontsize=9)


def _bars(axes: Axes, bins: dict[str, int]) -> None:
    total = max(1, sum(bins.values()))
    names = [name for name in (AHEAD, HIT, *(name for name, _ in BINS), LATER, MISSED) if name in bins]
    colours = [UNSAFE_COLOUR if name == MISSED else "#4a6fa5" for name in names]
    bars = axes.bar(names, [100 * bins[name] / total for name in names], color=colours)
    axes.bar_label(bars, [str(bins[name]) for name in names], fontsize=7)
    axes.set_ylabel("% of unsafe answers")
    axes.tick_params(axis="x", labelsize=7)


def _curves(axes: Axes, judged: Sequence[Judged]) -> None:
    for is_unsafe, colour, name in ((True, UNSAFE_COLOUR, "labelled Unsafe"), (False, SAFE_COLOUR, "the others")):
        rows = [
            one.answer.harms[:CURVE_TOKENS]
            for one in judged
            if one.answer is not None and _is_unsafe(one.item.answer_risk) is is_unsafe
        ]
        if curve := mean_curve(rows, CURVE_TOKENS):
            axes.plot(range(1, len(curve) + 1), curve, color=colour, label=f"{name} ({len(rows)})")
    axes.set(ylim=(0, 1), xlabel="token of the answer", ylabel="mean 1 - P(Safe)")
    axes.set_title("Risk along answers", fontsize=9)
    axes.legend(fontsize=7, frameon=False)


def _prompts(axes: Axes, judged: Sequence[Judged]) -> None:
    labelled = [one for one in judged if one.prompt is not None and one.item.prompt_risk is not None]
    for is_unsafe, colour, name in ((True, UNSAFE_COLOUR, "labelled Unsafe"), (False, SAFE_COLOUR, "the others")):
        scores = [
            1.0 - one.prompt.levels[0]
            for one in labelled
            if one.prompt is not None and _is_unsafe(one.item.prompt_risk) is is_unsafe
        ]
        if scores:
            label = f"{name} ({len(scores)})"
            axes.hist(scores, bins=SCORE_BINS, range=(0, 1), color=colour, alpha=0.6, label=label)
    axes.set(xlabel="1 - P(Safe)", ylabel="prompts")
    axes.set_title("Scores of prompts", fontsize=9)
    axes.legend(fontsize=7, frameon=False)


def _is_unsafe(risk: RiskLevel | None) -> bool:
    return risk is RiskLevel.UNSAFE
