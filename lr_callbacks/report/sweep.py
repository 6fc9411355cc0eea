"""The jobs of a sweep: what distinguishes their methods, and the figure that compares them."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lr_callbacks.tracking.decimation import spread
from lr_callbacks.tracking.journal import OVERRIDES

if TYPE_CHECKING:  # they take seconds
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mlflow.entities import Run

#: Overrides that distinguish no methods: the axis of the figure, repetitions, and the how.
_AXIS, _SEEDS = "optimizer.lr", ("seed", "data.seed")
_HOW = ("resume", "skip_finished", "logger", "test", "penalty", "hydra")
_COLOURS = ("#2166ac", "#d7301f", "#1b7837", "#7b3294", "#e08214", "#01665e", "#c51b7d", "#4d4d4d")
_MARKERS = "osv^Dph"  # with the colours, 56 methods are distinguished
COLUMNS = ("method", "rate", "seed", "final", "verdict", "status", "run_id")

#: Jobs that are marked at most, beside the medians.
MARKS = 200


class Job(NamedTuple):
    """One run of a sweep."""

    method: str
    rate: float  # the initial learning rate; NaN where none is recorded
    seed: str
    final: float  # NaN where the run has no such metric
    verdict: str
    status: str
    run_id: str


def jobs_of(runs: Sequence["Run"], metric: str) -> list[Job]:
    """Return the jobs of a sweep, method by method, smallest rate first; ``metric``'s last value.

    Methods are distinguished by the overrides in which the jobs differ, but for rate and seed.
    """
    rows = [_overrides(run) for run in runs]
    keys = {
        key
        for key in {key for row in rows for key in row}
        if key not in (_AXIS, *_SEEDS) and key.split(".")[0].split("/")[0] not in _HOW
        if len({row.get(key) for row in rows}) > 1
    }
    jobs = [_job(run, row, keys, metric) for run, row in zip(runs, rows, strict=True)]
    return sorted(jobs, key=lambda job: (job.method, job.rate, job.seed))


def figure(jobs: Sequence[Job], metric: str) -> "Figure":
    """Draw a sweep, with at most 200 marks.

    Args:
        jobs: as `jobs_of` gives them.
        metric: its name.

    Returns:
        The metric against the initial rate, a line through the medians of each method; or, where
        all jobs have one rate, the metric of each method in a row of its own. Runs that diverged or
        have no number are crosses at the edge.
    """
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(job.method for job in jobs))
    good, lost = [j for j in jobs if _good(j)], [j for j in jobs if not _good(j)]
    shown = spread(lost, MARKS // 2) + spread(good, MARKS - min(len(lost), MARKS // 2))
    finals = [job.final for job in good] or [1.0]
    edge = 2 * max(finals) if min(finals) > 0 else max(finals)
    several = len({job.rate for job in jobs if math.isfinite(job.rate)}) > 1
    size = (8, max(4.2 if several else 2.4, 1 + 0.2 * len(methods)))
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots()
    for place, method in enumerate(methods):
        style: dict[str, Any] = {"color": _COLOURS[place % 8], "marker": _MARKERS[place % 7]}
        if several:
            rates, medians = _medians(job for job in good if job.method == method)
            axes.plot(rates, medians, lw=1, color=style["color"])
            axes.plot([], [], lw=1, ms=4, label=method, **style)
        for job in (job for job in shown if job.method == method):
            value = job.final if _good(job) else edge
            at = (job.rate, value) if several else (value, place)
            own = {"alpha": 0.5} if _good(job) else {"marker": "x"}
            axes.plot(*at, ls="", ms=4, **{**style, **own})
    scale, label = "log" if min(finals) > 0 else "linear", f"final {metric}   (×: diverged)"
    _dress(axes, methods, several, scale, label)
    return drawn


def _dress(axes: "Axes", methods: list[str], several: bool, scale: str, label: str) -> None:
    """Label the axes."""
    if several:
        axes.set(xscale="log", yscale=scale, xlabel="initial learning rate", ylabel=label)
        axes.legend(frameon=False, fontsize=8)
    else:
        axes.set(xscale=scale, xlabel=label, ylim=(len(methods) - 0.5, -0.5))
        axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _good(job: Job) -> bool:
    return math.isfinite(job.final) and job.verdict != "diverged"


def _medians(jobs: Iterable[Job]) -> tuple[list[float], list[float]]:
    finals: dict[float, list[float]] = {}
    for job in jobs:
        finals.setdefault(job.rate, []).append(job.final)
    rates = sorted(finals)
    return rates, [statistics.median(finals[rate]) for rate in rates]


def _overrides(run: "Run") -> dict[str, str]:
    """Return the overrides of a job, by key."""
    overrides: list[str] = json.loads(run.data.tags.get(OVERRIDES, "[]"))
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+"): value for key, _, value in pairs}


def _job(run: "Run", overrides: dict[str, str], keys: set[str], metric: str) -> Job:
    method = ", ".join(f"{key}={overrides[key]}" for key in sorted(keys & overrides.keys()))
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
