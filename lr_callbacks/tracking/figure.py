"""The figure of a run: its loss, its rate in force and scheduled, every decision explained."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lr_callbacks.tracking.history import History, sentence, short
from lr_callbacks.tracking.series import Points, extremes, finite, scheduled

Decisions = Sequence[tuple[int, dict[str, Any]]]

#: Colour of each condition, darker the worse.
COLOURS = {
    "oscillating": "#7b3294",
    "spiking": "#e08214",
    "diverging": "#d7301f",
    "nonfinite": "#7f0000",
}
#: Reasons and marked decisions at most: a run with more is drawn as fast.
REASONS, MARKS = 14, 2000

#: Characters of a decision's line that fit below the figure.
WIDE = 120


def draw(runs: Mapping[str, History]) -> Figure:
    """Draw one or more runs above one another.

    Args:
        runs: by label; the decisions of all are marked, their reasons listed while there is room.

    Returns:
        A figure of two panels sharing the axis of steps: loss on a log axis (linear where a loss
        is not positive), rates on a log axis. Long series are drawn with their extremes.
    """
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    loss_axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    told: list[str] = []
    count = 0
    for index, (label, run) in enumerate(runs.items()):
        loss = run.series.get(run.loss, [])
        colour = ("#2166ac", "#999999", "#1b7837", "#c51b7d")[index % 4]
        _loss(loss_axes, loss, label, colour)
        _rates(rate_axes, run, label if len(runs) > 1 else "", colour)
        told += _mark((loss_axes, rate_axes), loss, run.decisions, len(told))
        count += len(run.decisions)
    shown = [value for r in runs.values() for _, value in finite(r.series.get(r.loss, []))]
    if shown and min(shown) > 0:
        loss_axes.set_yscale("log")
    loss_axes.set_ylabel("training loss")
    rate_axes.set_ylabel("learning rate")
    rate_axes.set_xlabel("optimizer step")
    for axes in (loss_axes, rate_axes):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", frameon=False, fontsize=8)
    if told:
        more = [f"… and {count - len(told)} more"] if count > len(told) else []
        text = "\n".join(told + more)
        figure.supxlabel(text, fontsize=8, ha="left", x=0.02, family="monospace")
    return figure


def _loss(axes: Axes, loss: Points, label: str, colour: str) -> None:
    points = finite(loss)
    if not points:
        return
    low, high = extremes(points)
    axes.plot(*zip(*high, strict=True), color=colour, lw=0.9, label=label)
    if len(high) < len(points):
        steps = [step for step, _ in high]
        bottom, top = [v for _, v in low], [v for _, v in high]
        axes.fill_between(steps, bottom, top, color=colour, alpha=0.35, lw=0)


def _rates(axes: Axes, run: History, label: str, colour: str) -> None:
    for name in (n for n in run.series if n.startswith("lr/")):
        rate = run.series[name]
        said = f"{label} in force".strip() if label else f"{name} in force"
        axes.plot(*zip(*rate, strict=True), color=colour, lw=1.2, label=said)
        scales = run.series.get(f"scale/{name.removeprefix('lr/')}", [])
        if any(scale != 1 for _, scale in scales):
            told = scheduled(rate, scales)
            axes.plot(*zip(*told, strict=True), color=colour, lw=1, ls=":", label="scheduled")
        if all(value > 0 for _, value in rate):
            axes.set_yscale("log")


def _mark(
    panels: tuple[Axes, Axes], loss: Points, decisions: Decisions, told: int
) -> Iterator[str]:
    """Mark decisions, each colour's at once; number and tell the first while there is room."""
    levels = dict(loss)
    width = math.ceil(len(decisions) / MARKS) or 1
    marked: dict[str, list[tuple[int, float]]] = {}
    for step, row in decisions[::width]:
        # A long series is thinned.
        level = levels[step] if step in levels else float(row.get("loss", math.nan))
        marked.setdefault(COLOURS.get(row["condition"], "#4d4d4d"), []).append((step, level))
    for colour, points in marked.items():
        for axes in panels:
            lines = [((step, 0.0), (step, 1.0)) for step, _ in points]
            edges = axes.get_xaxis_transform()
            drawn = LineCollection(lines, colors=colour, lw=0.8, alpha=0.5, transform=edges)
            axes.add_collection(drawn, autolim=False)
        dots = [point for point in points if math.isfinite(point[1])]
        if dots:
            panels[0].plot(*zip(*dots, strict=True), "o", ms=4, color=colour)
    for number, (step, row) in enumerate(decisions[: max(0, REASONS - told)], told + 1):
        panels[0].annotate(
            str(number),
            (step, 1),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=7,
            color=COLOURS.get(row["condition"], "#4d4d4d"),
        )
        yield f"{number:>2} step {step}: {short(sentence(row), WIDE)}"
