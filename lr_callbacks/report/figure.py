"""The figure of a run: loss, modes, checks and gates, rates, gradient norm, decisions explained."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lr_callbacks.report.figure_marks import Mark, Marks, Span, marks
from lr_callbacks.report.history import History, sentence, short
from lr_callbacks.tracking.decimation import Points, drawable

#: Colour of each condition, darker the worse.
COLOURS = {
    "oscillating": "#7b3294",
    "spiking": "#e08214",
    "diverging": "#d7301f",
    "nonfinite": "#7f0000",
}
CALM = "#4d4d4d"

#: Colour of each mode, outcome and gate; hatched where grey alone would not distinguish them.
SPANS = {
    "cruise": "#e8eef4", "hold": "#e8eef4", "watch": "#fdd49e", "verify": "#6baed6",
    "look": "#9ecae1", "doubt": "#cbc9e2", "recover": "#a1d99b", "trial": "#c7e9c0",
    "exhausted": "#737373", "recovered": "#41ab5d", "kept": "#41ab5d", "undone": "#969696",
    "still high": "#fc9272", "weights harmed": "#cb181d", "recovered to a worse level": "#ef6548",
    "bad data": "#8c6d31", "new normal": "#3182bd", "skipped": "#7f0000", "clipped": "#e08214",
    "held": "#6baed6", "abandoned": "#969696", "ramp": "#dfc27d", "trials": "#bf812d",
}  # fmt: skip
OTHER = "#d9d9d9"
HATCHES = {"verify": "////", "recover": "....", "weights harmed": "xxxx", "new normal": "////"}

#: Reasons that are listed at most, and characters of their lines.
REASONS, WIDE = 14, 112

#: Inches: the width at which 9 points are read in MLflow's viewer and on a page.
WIDTH, FONT = 8.0, 9

#: Share of the axis that a span has at least, so that it is seen, and that two numbers are apart.
SEEN, APART = 0.004, 0.025

#: What stands before the names of gradient norms; how the scheduled rate is called.
NORM, SCHEDULED = "grad_norm/", "scheduled"

LINES = ("#2166ac", "#8c8c8c", "#1b7837", "#c51b7d")


def draw(runs: Mapping[str, History]) -> Figure:
    """Draw one or more runs above one another.

    Args:
        runs: by label. Where one of them has decisions, its modes, checks and gates are shown in a
            band of their own and its decisions are numbered, with the reasons of the first below.

    Returns:
        A figure of panels that share the axis of steps, each labelled by what it shows: ``loss`` on
        a log axis (linear where a loss is not positive), ``policy``, ``rate`` (in force and
        scheduled), ``norm`` of the gradients where that was recorded. Long series are drawn with
        their extremes; there are at most 200 marks.
    """
    acting = {label: run for label, run in runs.items() if run.decisions}
    decided = _together(acting)
    marked = marks(decided)
    figure, panels = _panels(runs, marked if len(acting) == 1 else None, len(decided.decisions))
    for index, (label, run) in enumerate(runs.items()):
        _series(panels, run, label, len(runs) > 1, LINES[index % len(LINES)])
    _dress(panels)
    figure.align_ylabels(list(panels.values()))
    if "policy" in panels:
        _policy(figure, panels["policy"], marked)
    _decisions([axes for name, axes in panels.items() if name != "policy"], decided, marked)
    if lines := _reasons(decided):
        figure.supxlabel("\n".join(lines), fontsize=7, ha="left", x=0.01, family="monospace")
    return figure


def _together(acting: Mapping[str, History]) -> History:
    """Return the run that decided, or the decisions of several in the order of their steps."""
    if len(acting) == 1:
        return next(iter(acting.values()))
    rows = [
        (step, {**row, "seen": "", "done": f"{label}: {sentence({**row, 'outcome': ''})}"})
        for label, run in acting.items()
        for step, row in run.decisions
    ]
    return History({}, {}, sorted(rows, key=lambda pair: pair[0]), 0, 0)


def _panels(
    runs: Mapping[str, History], marked: Marks | None, decisions: int
) -> tuple[Figure, dict[str, Axes]]:
    """Make a figure with the panels that there is something for, each as high as it needs."""
    heights = {"loss": 3.0, "policy": 0.0, "rate": 1.7, "norm": 0.0}
    if marked is not None:
        heights["policy"] = 0.25 * sum(1 for spans in _rows(marked).values() if spans)
    if any(name.startswith(NORM) for run in runs.values() for name in run.series):
        heights["norm"] = 1.4
    heights = {name: height for name, height in heights.items() if height}
    size = (WIDTH, sum(heights.values()) + 0.9 + 0.14 * min(decisions, REASONS + 1))
    figure = Figure(figsize=size, layout="constrained")
    drawn = figure.subplots(len(heights), 1, sharex=True, height_ratios=list(heights.values()))
    return figure, dict(zip(heights, drawn, strict=True))


def _series(
    panels: Mapping[str, Axes], run: History, label: str, several: bool, colour: str
) -> None:
    """Draw loss, rates and norms of a run; dashes and widths distinguish them without colour."""
    _line(panels["loss"], run.series.get(run.loss, []), color=colour, lw=0.9, label=label)
    for name in (n for n in run.series if n.startswith("lr/")):
        entry = f"{label if several else name} in force"
        _line(panels["rate"], run.series[name], color=colour, lw=1.6, label=entry)
        if rates := scheduled(run, name):
            labelled = any(line.get_label() == SCHEDULED for line in panels["rate"].lines)
            entry = "_" if labelled else SCHEDULED
            _line(panels["rate"], rates, color="black", lw=0.9, ls=":", label=entry)
    for name in (n for n in run.series if n.startswith(NORM)):
        entry = label if several else name.removeprefix(NORM)
        _line(panels["norm"], run.series[name], color=colour, lw=0.7, label=entry)


def _line(axes: Axes, points: Points, **style: Any) -> None:
    if drawn := drawable(points):
        axes.plot(*zip(*drawn, strict=True), **style)


def scheduled(run: History, name: str) -> list[tuple[int, float]]:
    """Divide the scale, recorded where it changes, out of a rate; empty where it is always 1."""
    changes = deque(run.series.get(f"scale/{name.removeprefix('lr/')}", []))
    if all(scale == 1 for _, scale in changes):
        return []
    scale, rates = 1.0, []
    for step, value in run.series[name]:
        while changes and changes[0][0] <= step:
            scale = changes.popleft()[1]
        rates.append((step, value / scale))
    return rates


def _dress(panels: Mapping[str, Axes]) -> None:
    """Label the axes; on a log axis go those whose values are all positive."""
    names = {"loss": "training loss", "rate": "learning rate", "norm": "gradient norm"}
    for panel, axes in panels.items():
        axes.set_label(panel)
        axes.margins(x=0.01)
        axes.tick_params(labelsize=FONT - 1)
        axes.grid(alpha=0.25, axis="x" if panel == "policy" else "both")
        axes.spines[["top", "right"]].set_visible(False)
        if panel == "policy":
            continue
        axes.set_ylabel(names[panel], fontsize=FONT)
        if axes.lines and axes.dataLim.y0 > 0:
            axes.set_yscale("log")
        if len(axes.lines) > (panel != "rate"):
            # Rates cross their panel, so that their legend stands above it.
            place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4, "borderaxespad": 0}
            style = {"framealpha": 0.8, "edgecolor": "none", "fontsize": FONT - 1}
            axes.legend(**style, **(place if panel == "rate" else {"loc": "best"}))
    axes.set_xlabel("optimizer step", fontsize=FONT)


def _policy(figure: Figure, axes: Axes, marked: Marks) -> None:
    """Draw what the policy did: a band of its modes, its checks by outcome, the gates."""
    left, right = axes.get_xlim()
    seen = SEEN * (right - left)
    rows = {name: spans for name, spans in _rows(marked).items() if spans}
    for place, spans in enumerate(reversed(rows.values())):
        for what in dict.fromkeys(span.what for span in spans):
            made = [(s.first, max(seen, s.last - s.first)) for s in spans if s.what == what]
            axes.broken_barh(made, (place - 0.36, 0.72), **_face(what))
    axes.set_yticks(range(len(rows)), list(reversed(rows)), fontsize=FONT - 1)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    shown = dict.fromkeys(span.what for spans in rows.values() for span in spans)
    keys = [Patch(label=what, **_face(what)) for what in shown]
    figure.legend(
        handles=keys, loc="outside upper center", ncols=6, frameon=False, fontsize=FONT - 2
    )


def _rows(marked: Marks) -> dict[str, list[Span]]:
    return {"mode": marked.bands, "check": marked.checks, "gate": marked.gates}


def _face(what: str) -> dict[str, Any]:
    colour, hatch = SPANS.get(what, OTHER), HATCHES.get(what)
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "#555555", "lw": 0.3}


def _decisions(panels: Sequence[Axes], run: History, marked: Marks) -> None:
    """Mark decisions by lines and dots, and number them, close ones together."""
    levels = dict(run.series.get(run.loss, []))
    by_colour: dict[str, list[Mark]] = {}
    for mark in marked.decisions:
        by_colour.setdefault(COLOURS.get(mark.row["condition"], CALM), []).append(mark)
    for colour, made in by_colour.items():
        for axes in panels:
            lines = [((mark.step, 0.0), (mark.step, 1.0)) for mark in made]
            drawn = LineCollection(
                lines, colors=colour, lw=0.7, alpha=0.5, transform=axes.get_xaxis_transform()
            )
            axes.add_collection(drawn, autolim=False)
        every = [(m.step, m.row.get("loss", levels.get(m.step, math.nan))) for m in made]
        dots = drawable([(step, float(level)) for step, level in every])
        if dots:
            panels[0].plot(*zip(*dots, strict=True), "o", ms=3.5, color=colour)
    left, right = panels[0].get_xlim()
    for group in _grouped(marked.decisions, APART * (right - left)):
        first, last = group[0].number, group[-1].number
        panels[0].annotate(
            str(first) if first == last else f"{first}–{last}",
            (group[0].step, 1),
            xycoords=("data", "axes fraction"),
            ha="left" if first != last else "center",
            va="bottom",
            fontsize=FONT - 2,
            color=COLOURS.get(group[0].row["condition"], CALM),
        )


def _grouped(decisions: Sequence[Mark], apart: float) -> Iterator[list[Mark]]:
    """Put decisions together whose numbers would lie upon one another."""
    group: list[Mark] = []
    for mark in decisions:
        if group and mark.step - group[0].step > apart * (1 + (len(group) > 1)):
            yield group
            group = []
        group.append(mark)
    if group:
        yield group


def _reasons(run: History) -> list[str]:
    """List the first decisions, numbered as they are marked; the rest is counted."""
    lines = [
        f"{number:>2} step {step}: {short(sentence(row), WIDE)}"
        for number, (step, row) in enumerate(run.decisions[:REASONS], 1)
    ]
    more = len(run.decisions) - REASONS
    return [*lines, f"… and {more} more"] if more > 0 else lines
