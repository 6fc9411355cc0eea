"""The robustness table, its heat map, and both in MLflow."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import tables
from robustness_methods import METHODS, benches

mpl.use("agg")
from matplotlib import pyplot as plt

Row = Mapping[str, Any]

#: Ratios are cut off here, so that one dead run does not decide a mean.
CAP = 1000.0

GROUPS = {
    "six tasks": (
        "digits_mlp", "digits_resnet", "cancer_logreg", "diabetes_mlp", "digits_ae",
        "char_transformer",
    ),
    "slow starts": (
        "deep_linear", "attention_wine", "narrow_relu", "parity", "cosine_classifier",
        "tied_autoencoder", "contrastive", "deep_sigmoid",
    ),
    "never tuned on": (
        "char_gru", "embedding_bag", "heavy_tail", "single_row", "gaussian_nll", "variational",
        "phase_retrieval",
    ),
}  # fmt: skip


def judged(row: Row, references: Mapping[str, Any]) -> dict[str, Any]:
    """Add ratio, regret and whether the run diverged.

    The ratio is final loss ÷ that of the tuned cosine, exp(difference) for losses in nats that may
    be negative; the regret is (L - tuned) / (initial - tuned).
    """
    reference = references[f"{row['task']}/{row['optimizer']}"]
    loss, tuned, initial = row["loss"], reference["loss"], row["initial"]
    diverged = not math.isfinite(loss) or loss > initial
    ratio = regret = CAP
    if math.isfinite(loss):
        nats = benches()[row["task"]].nats
        ratio = math.exp(min(7.0, loss - tuned)) if nats else loss / tuned
        regret = (loss - tuned) / (initial - tuned)
    return {
        **row,
        "diverged": diverged,
        "ratio": min(CAP, max(1 / CAP, ratio)),
        "regret": min(10.0, max(-1.0, regret)),
    }


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def geometric(values: Sequence[float]) -> float:
    return math.exp(mean([math.log(v) for v in values])) if values else math.nan


HEAD = (
    "method", "cells", "≤ 5 %", "≤ 20 %", "≤ 2×", "geometric mean", "worst", "mean regret",
    "regret > 0.5", "diverged",
)  # fmt: skip


def line(name: str, rows: Sequence[Row]) -> list[str]:
    ratios = [r["ratio"] for r in rows]
    share: Callable[[float], str] = lambda limit: (  # noqa: E731
        f"{100 * mean([float(r <= limit) for r in ratios]):.0f} %"
    )
    return [
        name, str(len(rows)), share(1.05), share(1.2), share(2.0), f"{geometric(ratios):.3f}",
        f"{max(ratios):.3g}", f"{mean([r['regret'] for r in rows]):.3f}",
        str(sum(r["regret"] > 0.5 for r in rows)), str(sum(r["diverged"] for r in rows)),
    ]  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Return one Markdown table for each group of tasks, and one by initial rate."""
    parts = []
    present = [m for m in METHODS if any(r["method"] == m for r in rows)]
    for group, names in GROUPS.items():
        chosen = [r for r in rows if r["task"] in names]
        if chosen:
            trained = [m for m in present if any(r["method"] == m for r in chosen)]
            lines = [line(m, [r for r in chosen if r["method"] == m]) for m in trained]
            parts.append(f"**{group}**\n\n{tables.markdown(HEAD, lines)}")
    factors = sorted({r["factor"] for r in rows})
    same = compared(rows)
    by_rate = [
        [m, *(f"{geometric(_ratios(same, m, factor)):.2f}" for factor in factors)] for m in present
    ]
    head = ("initial rate ÷ tuned", *(f"{factor:g}" for factor in factors))
    title = "**geometric mean by initial rate, tasks that all methods were trained on**"
    parts.append(f"{title}\n\n{tables.markdown(head, by_rate)}")
    return "\n\n".join(parts)


def compared(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the tasks that all methods were trained on."""
    methods = {r["method"] for r in rows}
    trained = {t: {r["method"] for r in rows if r["task"] == t} for t in {r["task"] for r in rows}}
    return [r for r in rows if trained[r["task"]] == methods]


def _ratios(rows: Sequence[Row], method: str, factor: float) -> list[float]:
    return [r["ratio"] for r in rows if r["method"] == method and r["factor"] == factor]


def heat_map(rows: Sequence[Row]) -> Any:
    """Draw the ratio by method, initial rate, task and optimizer; white is the tuned loss."""
    rows = compared(rows)
    present = [m for m in METHODS if any(r["method"] == m for r in rows)]
    pairs = sorted({(r["task"], r["optimizer"]) for r in rows})
    factors = sorted({r["factor"] for r in rows})
    figure, axes = plt.subplots(
        1, len(present), sharey=True, squeeze=False, layout="constrained",
        figsize=(2 + 1.3 * len(present), 1.5 + 0.17 * len(pairs)),
    )  # fmt: skip
    image = None
    for axis, method in zip(axes[0], present, strict=True):
        grid = [
            [
                math.log10(geometric([
                    r["ratio"] for r in rows
                    if (r["method"], r["task"], r["optimizer"], r["factor"]) == (method, *pair, f)
                ]))
                for f in factors
            ]
            for pair in pairs
        ]  # fmt: skip
        image = axis.imshow(grid, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        axis.set_title(method, fontsize=9)
        axis.set_xticks(range(len(factors)), [f"{math.log10(f):+.0f}" for f in factors], fontsize=6)
    axes[0][0].set_yticks(range(len(pairs)), [f"{t} {o}" for t, o in pairs], fontsize=6)
    axes[0][0].set_xlabel("log10 of initial ÷ tuned rate", fontsize=7)
    figure.colorbar(image, ax=axes[0], label="log10 of final loss ÷ tuned", shrink=0.6)
    return figure


def write(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Print the table, save the figure, and put both where the options say."""
    text = table(rows)
    print(text)
    heat_map(rows).savefig(options.figure, dpi=150)
    tables.write("robustness", text, options.write)
    if options.tracking_uri:
        _track(rows, text, options)


def _track(rows: Sequence[Row], text: str, options: argparse.Namespace) -> None:
    """Record one run a method, and a parent with table, figure and results."""
    import mlflow

    mlflow.set_tracking_uri(options.tracking_uri)
    mlflow.set_experiment("robustness")
    with mlflow.start_run(run_name="robustness"):
        mlflow.log_artifact(str(options.figure))
        mlflow.log_artifact(str(options.out))
        mlflow.log_text(text, "robustness.md")
        for method in METHODS:
            chosen = [r for r in rows if r["method"] == method]
            if not chosen:
                continue
            with mlflow.start_run(run_name=method, nested=True):
                mlflow.log_param("method", method)
                ratios = [r["ratio"] for r in chosen]
                mlflow.log_metrics({
                    "ratio/geometric_mean": geometric(ratios),
                    "ratio/worst": max(ratios),
                    "ratio/within_20_percent": mean([float(r <= 1.2) for r in ratios]),
                    "regret/mean": mean([r["regret"] for r in chosen]),
                    "diverged": float(sum(r["diverged"] for r in chosen)),
                })  # fmt: skip
                for factor in sorted({r["factor"] for r in chosen}):
                    step = round(math.log10(factor))
                    at = geometric([r["ratio"] for r in chosen if r["factor"] == factor])
                    mlflow.log_metric("ratio/by_rate", at, step=step)
