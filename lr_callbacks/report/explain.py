"""``lr-callbacks explain``: what happened around a step of a run, in sentences."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lr_callbacks.report.alarms import NONE, Decisions, first_alarm
from lr_callbacks.report.find_run import Found, find
from lr_callbacks.report.sentences import sentences
from lr_callbacks.terminal import show, show_json
from lr_callbacks.tracking.decimation import Points

#: Steps to either side that are reported, and that the table shows.
NEAR, SHOWN = 25, 8

EXAMPLES = """\
RUN is `last`, the name or the id of a run, or the path of its journal. What is on this disk is read
from there, an id that is not from MLflow. Without --around the first alarm is explained, or the end
of a run that had none.

examples:
  lr-callbacks explain last
  lr-callbacks explain last --around 412
  lr-callbacks explain 0f1e2d3c4b5a69788796a5b4c3d2e1f0 --tracking-uri http://HOST:5000 --json"""


class Explained(NamedTuple):
    """What happened around a step.

    Attributes:
        run, verdict, steps: the whole of it.
        around, chosen: the step, and why it.
        first, last: the steps that are reported.
        told: sentences.
        decisions: the rows of the table of decisions there, with their steps.
        elsewhere: the steps of the other decisions.
        series: every point there, by metric.
    """

    run: str
    verdict: str
    steps: int
    around: int
    chosen: str
    first: int
    last: int
    told: list[str]
    decisions: list[dict[str, Any]]
    elsewhere: list[int]
    series: Mapping[str, Points]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--around", type=int, metavar="STEP", help="default: the first alarm")
    parser.add_argument("--tracking-uri", help="MLflow's store (MLFLOW_TRACKING_URI, or mlflow.db)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of sentences")


def main(options: argparse.Namespace) -> int:
    """Explain, and return the exit code.

    Raises:
        ValueError, OSError: there is no such run, or it cannot be explained.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    explained = explain(find(options.run, Path(), options.tracking_uri), options.around)
    if options.json:
        show_json(explained._asdict())
        return 0
    print(f"{explained.run}: {explained.verdict}, {explained.steps} steps")
    steps = f"steps {explained.first} to {explained.last}"
    print(f"around step {explained.around}, {explained.chosen} ({steps}):\n")
    print(*(f"- {sentence}" for sentence in explained.told), sep="\n", end="\n\n")
    show(*table(explained))
    if explained.elsewhere:
        more = ", ".join(map(str, explained.elsewhere[:12]))
        print(f"\nother decisions at {more}{' …' if len(explained.elsewhere) > 12 else ''}")
    return 0


def explain(found: Found, around: int | None = None) -> Explained:
    """Report what happened around a step.

    Args:
        found: the run.
        around: the step; None for the first alarm, or the last step of a run that had none.

    Raises:
        ValueError: the run has no losses, or has not made the step.
    """
    run = found.run
    losses = run.series.get(run.loss, [])
    if not losses:
        raise ValueError("the run has no losses yet.")
    step, chosen = _chosen(run.decisions, losses, around)
    first, last = max(losses[0][0], step - NEAR), min(losses[-1][0], step + NEAR)
    series = found.near(first, last)
    here = [(s, row) for s, row in run.decisions if first <= s <= last]
    return Explained(
        str(run.about.get("run_name") or "the run"),
        run.verdict,
        run.steps,
        step,
        chosen,
        first,
        last,
        sentences(series, run.loss, here, step),
        [{"step": s, **row} for s, row in here],
        [s for s, _ in run.decisions if not first <= s <= last],
        series,
    )


def table(explained: Explained) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and the rows of the steps next to the one explained."""
    kinds = ("lr/", "scale/", "grad_norm/", "update_ratio/")
    loss = next((n for n in explained.series if n.startswith("watched/")), "train/loss")
    names = [loss, *sorted(n for n in explained.series if n.startswith(kinds))]
    values = {name: dict(points) for name, points in explained.series.items()}
    near = range(explained.around - SHOWN, explained.around + SHOWN + 1)
    steps = sorted({s for s in values.get(loss, {}) if s in near})
    events = {
        step: ", ".join(n[7:] for n in values if n.startswith("events/") and step in values[n])
        for step in steps
    }
    rows = [[s, *(values[n].get(s, "") for n in names), events[s]] for s in steps]
    return ["step", *names, "events"], rows


def _chosen(decisions: Decisions, losses: Points, around: int | None) -> tuple[int, str]:
    if around is not None:
        if not losses[0][0] <= around <= losses[-1][0]:
            made = f"it made the steps {losses[0][0]} to {losses[-1][0]}"
            raise ValueError(f"`--around` must be a step of the run, got {around}; {made}.")
        return around, "as asked"
    if alarm := first_alarm(decisions):
        return alarm[0], "the first alarm"
    if decisions:
        return decisions[0][0], f"the first decision; there was {NONE}"
    return losses[-1][0], f"the end; there was {NONE} and no decision"
