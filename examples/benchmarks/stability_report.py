"""The stability tables, their figure, and both in MLflow."""

import argparse
from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

import matplotlib as mpl
import tables
from stability_conditions import CONDITIONS

mpl.use("agg")
from matplotlib import pyplot as plt

Row = Mapping[str, Any]

#: A regret above it is a harm that a person would see.
HARM = 0.1


def summary(rows: Sequence[Row]) -> str:
    """Return mean / worst / how many are harmed, and how many end dead."""
    if not rows:
        return "–"
    regrets = [row["regret"] for row in rows]
    dead = sum(row["dead"] for row in rows)
    harmed = sum(regret > HARM for regret in regrets)
    text = f"{_short(mean(regrets))}/{_short(max(regrets))}/{harmed}"
    return f"{text} †{dead}" if dead else text


def _short(number: float) -> str:
    text = f"{number:.3f}".replace("0.", ".", 1)
    return ".000" if text == "-.000" else text


def table(rows: Sequence[Row]) -> str:
    """Return the regrets by condition and method, in Markdown."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    conditions = [name for name in CONDITIONS if any(row["condition"] == name for row in rows)]
    lines = []
    for condition in conditions:
        chosen = [
            [r for r in of(rows, method) if r["condition"] == condition] for method in methods
        ]
        lines.append([condition, max(map(len, chosen)), *map(summary, chosen)])
    for title, changed in (("**faults**", False), ("**meant changes**", True)):
        names = {
            c.name for c in CONDITIONS.values() if c.changed == changed and c.name != "healthy"
        }
        chosen = [[r for r in of(rows, method) if r["condition"] in names] for method in methods]
        lines.append([title, max(map(len, chosen)), *map(summary, chosen)])
    text = tables.markdown(("condition", "cells", *methods), lines)
    caption = "mean / worst regret / cells above 0.1; †: end not finite or above the first loss"
    return f"{caption}\n\n{text}"


def of(rows: Sequence[Row], method: str) -> list[Row]:
    return [row for row in rows if row["method"] == method]


def effort(rows: Sequence[Row]) -> str:
    """Return how often the methods that decide acted, and what is left of the rate."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    conditions = [name for name in CONDITIONS if any(row["condition"] == name for row in rows)]
    acting = [m for m in methods if any(r["interventions"] or r["skipped"] for r in of(rows, m))]
    acting += [m for m in methods if m == "plateau"]
    lines = []
    for condition in conditions:
        line: list[str] = [condition]
        for method in acting:
            chosen = [r for r in of(rows, method) if r["condition"] == condition]
            line.append(_effort(chosen) if chosen else "–")
        lines.append(line)
    caption = (
        "decisions that changed something / roll-backs / steps left out, in the mean, / median "
        "share of the scheduled rate at the end"
    )
    return f"{caption}\n\n{tables.markdown(('condition', *acting), lines)}"


def _effort(rows: Sequence[Row]) -> str:
    means = [mean(row[key] for row in rows) for key in ("interventions", "rollbacks", "skipped")]
    left = median(row["final_scale"] for row in rows)
    return " / ".join([*(f"{value:.1f}" for value in means), f"{left:.2g}"])


def figure(rows: Sequence[Row]) -> Any:
    """Draw the regret by method, condition and training; white is that of the twin."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    conditions = [name for name in CONDITIONS if any(row["condition"] == name for row in rows)]
    names = list(dict.fromkeys(row["task"] for row in rows))
    drawn, axes = plt.subplots(
        1, len(methods), sharey=True, squeeze=False, layout="constrained",
        figsize=(2 + (0.5 + 0.17 * len(names)) * len(methods), 2 + 0.2 * len(conditions)),
    )  # fmt: skip
    colours = mpl.colormaps["RdBu_r"].with_extremes(bad="lightgray")
    image = None
    for axis, method in zip(axes[0], methods, strict=True):
        found: dict[tuple[str, str], list[float]] = {}
        for row in of(rows, method):
            found.setdefault((row["condition"], row["task"]), []).append(row["regret"])
        grid = [
            [mean(found[c, n]) if (c, n) in found else float("nan") for n in names]
            for c in conditions
        ]
        scale = mpl.colors.SymLogNorm(0.02, vmin=-2, vmax=2)
        image = axis.imshow(grid, cmap=colours, norm=scale, aspect="auto")
        axis.set_title(method, fontsize=9)
        axis.set_xticks(range(len(names)), names, fontsize=6, rotation=90)
    axes[0][0].set_yticks(range(len(conditions)), conditions, fontsize=7)
    marks = [-1, -0.1, 0, 0.1, 1]
    bar = drawn.colorbar(image, ax=axes[0], label="regret", shrink=0.8, ticks=marks, format="%g")
    bar.ax.minorticks_off()
    return drawn


def write(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Print the tables, save the figure, and put both where the options say."""
    text = table(rows)
    print(text, effort(rows), sep="\n\n")
    figure(rows).savefig(options.figure, dpi=150)
    tables.write(options.markers, text, options.write)
    if options.mlflow:
        _track(rows, text, options)


def _track(rows: Sequence[Row], text: str, options: argparse.Namespace) -> None:
    """Record one run a method, and a parent with tables, figure and results."""
    import mlflow

    mlflow.set_tracking_uri(options.mlflow)
    mlflow.set_experiment("stability")
    with mlflow.start_run(run_name="stability"):
        mlflow.log_artifact(str(options.figure))
        mlflow.log_artifact(str(options.out))
        mlflow.log_text(f"{text}\n\n{effort(rows)}", "stability.md")
        for method in dict.fromkeys(row["method"] for row in rows):
            with mlflow.start_run(run_name=method, nested=True):
                mlflow.log_param("method", method)
                for condition in {row["condition"] for row in rows}:
                    regrets = [r["regret"] for r in of(rows, method) if r["condition"] == condition]
                    if regrets:
                        mlflow.log_metric(f"regret/{condition}/mean", mean(regrets))
                        mlflow.log_metric(f"regret/{condition}/worst", max(regrets))
