"""The jobs of a sweep: what tells their methods apart, and the figure that compares them."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lr_callbacks.tracking.names import ASKED

if TYPE_CHECKING:  # they take seconds
    from matplotlib.figure import Figure
    from mlflow.entities import Run

#: Overrides that tell no methods apart: the axis of the figure, repetitions, and the how.
_AXIS, _SEEDS = "optimizer.lr", ("seed", "data.seed")
_HOW = ("resume", "logger", "test", "penalty", "hydra")
_COLOURS = ("#2166ac", "#d7301f", "#1b7837", "#7b3294", "#e08214", "#01665e", "#c51b7d", "#4d4d4d")
COLUMNS = ("method", "rate", "seed", "final", "verdict", "status", "run_id")


class Job(NamedTuple):
    """One run of a sweep."""

    method: str
    rate: float  # the initial learning rate; NaN where none is known
    seed: str
    final: float  # NaN where the run has no such metric
    verdict: str
    status: str
    run_id: str


def jobs_of(runs: Sequence["Run"], metric: str) -> list[Job]:
    """Return the jobs of a sweep, method by method, smallest rate first; ``metric``'s last value.

    Methods are told apart by the overrides in which the jobs differ, but for rate and seed.
    """
    asked = [_asked(run) for run in runs]
    told = {
        key
        for key in {key for row in asked for key in row}
        if key not in (_AXIS, *_SEEDS) and key.split(".")[0].split("/")[0] not in _HOW
        if len({row.get(key) for row in asked}) > 1
    }
    jobs = [_job(run, row, told, metric) for run, row in zip(runs, asked, strict=True)]
    return sorted(jobs, key=lambda job: (job.method, job.rate, job.seed))


def figure(jobs: Sequence[Job], metric: str) -> "Figure":
    """Draw the metric against the initial rate: a line through the medians of each method.

    Runs that diverged or have no number are crosses at the upper edge.
    """
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(job.method for job in jobs))
    drawn = Figure(figsize=(8, max(4.8, 1 + 0.18 * len(methods))), layout="constrained")
    axes = drawn.subplots()
    finals = [job.final for job in jobs if _good(job)]
    top = 2 * max(finals, default=1.0) if min(finals, default=1.0) > 0 else max(finals)
    for index, method in enumerate(methods):
        colour = _COLOURS[index % len(_COLOURS)]
        mine = [job for job in jobs if job.method == method and math.isfinite(job.rate)]
        good = [job for job in mine if _good(job)]
        axes.plot(
            [j.rate for j in good], [j.final for j in good], "o", ms=3, color=colour, alpha=0.5
        )
        axes.plot(*_medians(good), "-", color=colour, label=method)
        lost = [job.rate for job in mine if not _good(job)]
        axes.plot(lost, [top] * len(lost), "x", color=colour)
    axes.set_xscale("log")
    if min(finals, default=0.0) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("initial learning rate")
    axes.set_ylabel(f"final {metric}   (×: diverged)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return drawn


def _good(job: Job) -> bool:
    return math.isfinite(job.final) and job.verdict != "diverged"


def _medians(jobs: Iterable[Job]) -> tuple[list[float], list[float]]:
    held: dict[float, list[float]] = {}
    for job in jobs:
        held.setdefault(job.rate, []).append(job.final)
    rates = sorted(held)
    return rates, [statistics.median(held[rate]) for rate in rates]


def _asked(run: "Run") -> dict[str, str]:
    """Return the overrides of a job, by key."""
    given: list[str] = json.loads(run.data.tags.get(ASKED, "[]"))
    pairs = (override.partition("=") for override in given)
    return {key.lstrip("+"): value for key, _, value in pairs}


def _job(run: "Run", asked: dict[str, str], told: set[str], metric: str) -> Job:
    method = ", ".join(f"{key}={asked[key]}" for key in sorted(told & asked.keys()))
    try:
        rate = float(run.data.params.get("optimizer/lr", "nan"))
    except ValueError:
        rate = math.nan
    return Job(
        method or "all",
        rate,
        run.data.params.get("seed", ""),
        float(run.data.metrics.get(metric, math.nan)),
        run.data.tags.get("lr_callbacks.verdict", ""),
        run.info.status,
        run.info.run_id,
    )
