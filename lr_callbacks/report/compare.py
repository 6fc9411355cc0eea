"""``lr-callbacks compare``: the table and the figure of a sweep, one line for each method."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lr_callbacks.report.sweep import COLUMNS, Job, figure, jobs_of
from lr_callbacks.terminal import EXIT_CODES, show, show_json

if TYPE_CHECKING:  # they take seconds, and its help needs none of them
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

EXAMPLES = f"""\
examples:
  lr-callbacks compare last                                   the newest sweep of this folder
  lr-callbacks compare "sweep 1125-114733" --metric test/accuracy --output accuracy.png
  lr-callbacks compare last --uri http://HOST:5000 --json     from a server, for a program
  lr-callbacks compare last --at-most 0.4                     exit code 1 where a job did worse,
                                                              diverged or did not finish

{EXIT_CODES}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("sweep", help="`last`, or the name or id of the parent run")
    parser.add_argument(
        "folder", nargs="?", default=".", type=Path, help="of mlflow.db; default: ."
    )
    parser.add_argument("--uri", help="the store, where it is not mlflow.db in the folder")
    parser.add_argument("--metric", default="val/loss", help="default: val/loss")
    parser.add_argument("--output", default="compare.png", type=Path, help="default: compare.png")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    limits = {"at-most": "the largest metric that passes", "at-least": "the smallest"}
    for limit, said in limits.items():
        parser.add_argument(f"--{limit}", type=_number, metavar="X", help=f"{said}; else exit 1")


def main(given: argparse.Namespace) -> int:
    """Compare the jobs of a sweep.

    Returns:
        The exit code: 0 done; 1 there is nothing to compare, or a limit was given and a job is
        beyond it, diverged or is not FINISHED, each of which is told.
    """
    from mlflow.exceptions import MlflowException

    try:
        jobs = compare(_uri(given.uri, given.folder), given.sweep, given.metric)
        figure(jobs, given.metric).savefig(given.output, dpi=130)
    except (OSError, ValueError, MlflowException) as error:
        print(f"lr-callbacks compare: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    if given.json:
        show_json([job._asdict() for job in jobs])
    else:
        show([given.metric if name == "final" else name for name in COLUMNS], jobs)
        print(f"figure: {given.output}")
    if given.at_most is given.at_least is None:
        return 0
    return int(_told(jobs, given.metric, given.at_most, given.at_least))


def _told(jobs: Sequence[Job], metric: str, most: float | None, least: float | None) -> bool:
    """Whether a job misses a limit; each that does is told."""
    missed = False
    for job in jobs:
        said = f"{metric} is {job.final:.4g}"
        if job.status != "FINISHED":
            said = f"is {job.status}"
        elif job.verdict == "diverged":
            said = "diverged"
        elif most is not None and not job.final <= most:
            said += f", more than {most:.4g}"
        elif least is not None and not job.final >= least:
            said += f", less than {least:.4g}"
        else:
            continue
        missed = True
        told = f"{job.method}, rate {job.rate:.4g}, seed {job.seed}"
        print(f"lr-callbacks compare: run {job.run_id} ({told}): {said}", file=sys.stderr)
    return missed


def _number(given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"must be a number, got {given!r}")
    return value


def compare(uri: str, sweep: str, metric: str) -> list[Job]:
    """Return the jobs of a sweep, method by method, smallest rate first.

    Args:
        uri: the store's address.
        sweep: ``last``, or the name or id of the parent run.
        metric: whose last value counts.

    Raises:
        ValueError: there is no such sweep, or no job has the metric.
        OSError: no server answers.
    """
    from mlflow.tracking import MlflowClient

    from lr_callbacks.tracking import store

    client = MlflowClient(uri)
    store.reachable(client)
    parent = _parent(client, sweep)
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    runs = list(client.search_runs([parent.info.experiment_id], query, max_results=5000))
    if not runs:
        raise ValueError(f"The sweep {parent.info.run_name!r} has no jobs.")
    if not any(metric in run.data.metrics for run in runs):
        known = ", ".join(sorted({name for run in runs for name in run.data.metrics}))
        raise ValueError(f"No job has the metric {metric!r}; there are {known or 'none'}.")
    return jobs_of(runs, metric)


def _parent(client: "MlflowClient", sweep: str) -> "Run":
    experiments = [e.experiment_id for e in client.search_experiments()]
    query = "tags.`lr_callbacks.sweep` = 'parent'"
    order = ["attributes.start_time DESC"]
    found = list(client.search_runs(experiments, query, order_by=order, max_results=1000))
    same = [r for r in found if sweep in ("last", r.info.run_id, r.info.run_name)]
    if same:
        return same[0]
    names = ", ".join(repr(r.info.run_name) for r in found[:5]) or "none"
    raise ValueError(f"There is no sweep {sweep!r}; the newest are {names}.")


def _uri(given: str | None, folder: Path) -> str:
    from lr_callbacks.tracking import store

    asked = given or os.environ.get("MLFLOW_TRACKING_URI")
    if not asked and not (folder / "mlflow.db").exists():
        raise ValueError(f"There is no mlflow.db in {folder.absolute()}; give its folder or --uri.")
    return store.resolve(asked, folder.absolute())
