"""``lr-callbacks compare``: the table and the figure of a sweep, one line for each method."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lr_callbacks.report.sweep import COLUMNS, Job, figure, jobs_of
from lr_callbacks.terminal import show, show_json
from lr_callbacks.tracking.conversion import first_line

if TYPE_CHECKING:  # they take seconds, and its help needs none of them
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

EXAMPLES = """\
examples:
  lr-callbacks compare last                                   the newest sweep of this folder
  lr-callbacks compare "sweep 1125-114733" --metric test/accuracy --output accuracy.png
  lr-callbacks compare last --uri http://HOST:5000 --json     from a server, for a program
  lr-callbacks compare last --at-most 0.4                     exit code 1 where a job did worse,
                                                              diverged or did not finish"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.add_argument("sweep", help="`last`, or the name or id of the parent run")
    parser.add_argument(
        "folder", nargs="?", default=".", type=Path, help="of mlflow.db; default: ."
    )
    parser.add_argument("--uri", help="the store, where it is not mlflow.db in the folder")
    parser.add_argument("--metric", default="val/loss", help="default: val/loss")
    parser.add_argument("--output", default="compare.png", type=Path, help="default: compare.png")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    limits = {"at-most": "the largest metric that passes", "at-least": "the smallest"}
    for limit, meaning in limits.items():
        parser.add_argument(f"--{limit}", type=_number, metavar="X", help=f"{meaning}; else exit 1")


def main(options: argparse.Namespace) -> int:
    """Compare the jobs of a sweep.

    Returns:
        The exit code: 0 done; 1 there is nothing to compare, or there is a limit and a job is
        beyond it, diverged or is not FINISHED, each of which is reported.

    Raises:
        ValueError, OSError: as `compare`; or the figure cannot be written.
    """
    jobs = compare(_uri(options.uri, options.folder), options.sweep, options.metric)
    figure(jobs, options.metric).savefig(options.output, dpi=130)
    if options.json:
        show_json([job._asdict() for job in jobs])
    else:
        show([options.metric if name == "final" else name for name in COLUMNS], jobs)
        print(f"figure: {options.output}")
    if options.at_most is options.at_least is None:
        return 0
    return int(_missed(jobs, options.metric, options.at_most, options.at_least))


def _missed(jobs: Sequence[Job], metric: str, most: float | None, least: float | None) -> bool:
    """Whether a job misses a limit; each that does is reported."""
    missed = False
    for job in jobs:
        finding = f"{metric} is {job.final:.4g}"
        if job.status != "FINISHED":
            finding = f"is {job.status}"
        elif job.verdict == "diverged":
            finding = "diverged"
        elif most is not None and not job.final <= most:
            finding += f", more than {most:.4g}"
        elif least is not None and not job.final >= least:
            finding += f", less than {least:.4g}"
        else:
            continue
        missed = True
        which = f"{job.method}, rate {job.rate:.4g}, seed {job.seed}"
        print(f"lr-callbacks compare: run {job.run_id} ({which}): {finding}", file=sys.stderr)
    return missed


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"must be a number, got {word!r}")
    return value


def compare(uri: str, sweep: str, metric: str) -> list[Job]:
    """Return the jobs of a sweep, method by method, smallest rate first.

    Args:
        uri: the store's address.
        sweep: ``last``, or the name or id of the parent run.
        metric: whose last value counts.

    Raises:
        ValueError: there is no such sweep, no job has the metric, or MLflow refuses.
        OSError: no server answers.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    from lr_callbacks.tracking import store

    client = MlflowClient(uri)
    store.reachable(client)
    try:
        parent = _parent(client, sweep)
        query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        runs = list(client.search_runs([parent.info.experiment_id], query, max_results=5000))
    except MlflowException as error:
        raise ValueError(f"MLflow: {first_line(error)}") from error
    if not runs:
        raise ValueError(f"The sweep {parent.info.run_name!r} has no jobs.")
    if not any(metric in run.data.metrics for run in runs):
        names = ", ".join(sorted({name for run in runs for name in run.data.metrics}))
        raise ValueError(f"No job has the metric {metric!r}; there are {names or 'none'}.")
    return jobs_of(runs, metric)


def _parent(client: "MlflowClient", sweep: str) -> "Run":
    experiments = [e.experiment_id for e in client.search_experiments()]
    query = "tags.`lr_callbacks.sweep` = 'parent'"
    order = ["attributes.start_time DESC"]
    sweeps = list(client.search_runs(experiments, query, order_by=order, max_results=1000))
    same = [r for r in sweeps if sweep in ("last", r.info.run_id, r.info.run_name)]
    if same:
        return same[0]
    names = ", ".join(repr(r.info.run_name) for r in sweeps[:5]) or "none"
    raise ValueError(f"There is no sweep {sweep!r}; the newest are {names}.")


def _uri(uri: str | None, folder: Path) -> str:
    from lr_callbacks.tracking import store

    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri and not (folder / "mlflow.db").exists():
        raise ValueError(f"There is no mlflow.db in {folder.absolute()}; give its folder or --uri.")
    return store.resolve(uri, folder.absolute())
