"""``lr-callbacks explain``: what happened around a step of a run, in sentences."""

import argparse
import math
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lr_callbacks.core import Condition
from lr_callbacks.terminal import EXIT_CODES, show, show_json
from lr_callbacks.tracking.past import Past, past
from lr_callbacks.verdict import verdict

#: Steps to either side that are told, that the table shows, and that make up the end of what is
#: told.
NEAR, SHOWN, END = 25, 8, 10

#: How many times its usual value a quantity is told to have reached.
LARGE = 2.0

#: Series whose departures are told, by what stands before their names, and what they are called.
_QUANTITIES = {
    "": "the loss",
    "grad_norm/": "the gradient norm",
    "update_ratio/": "the update-to-weight ratio",
}
_TROUBLE = {condition.name.lower() for condition in Condition if condition.trouble}

EXAMPLES = f"""\
RUN is `last`, the name or the id of a run, or the path of its journal. What is on this disk is read
from there, an id that is not from MLflow. Without --around the first alarm is explained, or the end
of a run that had none.

examples:
  lr-callbacks explain last
  lr-callbacks explain last --around 412
  lr-callbacks explain 0f1e2d3c4b5a69788796a5b4c3d2e1f0 --tracking-uri http://HOST:5000 --json

{EXIT_CODES}"""

Points = Sequence[tuple[int, float]]


class Explained(NamedTuple):
    """What happened around a step.

    Attributes:
        run, verdict, steps: the whole of it.
        around, chosen: the step, and why it.
        first, last: the steps that are told.
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
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--around", type=int, metavar="STEP", help="default: the first alarm")
    parser.add_argument("--tracking-uri", help="MLflow's store (MLFLOW_TRACKING_URI, or mlflow.db)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of sentences")


def main(given: argparse.Namespace) -> int:
    """Explain, and return the exit code: 0, or 1 after one sentence."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        found = past(given.run, Path(), given.tracking_uri)
        told = explain(found, given.around)
    except (ValueError, OSError) as error:
        print(f"lr-callbacks explain: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    if given.json:
        show_json(told._asdict())
        return 0
    print(f"{told.run}: {told.verdict}, {told.steps} steps")
    print(f"around step {told.around}, {told.chosen} (steps {told.first} to {told.last}):\n")
    print(*(f"- {sentence}" for sentence in told.told), sep="\n", end="\n\n")
    show(*table(told))
    if told.elsewhere:
        more = ", ".join(map(str, told.elsewhere[:12]))
        print(f"\nother decisions at {more}{' …' if len(told.elsewhere) > 12 else ''}")
    return 0


def explain(found: Past, around: int | None = None) -> Explained:
    """Tell what happened around a step.

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
    told = [*_before(series, run.loss, step), *_departures(series, run.loss, step)]
    told += [_decided(s, row) for s, row in here]
    told += [*_events(series), *_after(series, run.loss, step, last)]
    told = [sentence[:1].upper() + sentence[1:] for sentence in told]
    return Explained(
        str(run.about.get("run_name") or "the run"),
        verdict(losses, run.decisions, watched=run.watched),
        run.steps,
        step,
        chosen,
        first,
        last,
        told,
        [{"step": s, **row} for s, row in here],
        [s for s, _ in run.decisions if not first <= s <= last],
        series,
    )


def table(told: Explained) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and the rows of the steps next to the one explained."""
    kinds = ("lr/", "scale/", "grad_norm/", "update_ratio/")
    loss = next((n for n in told.series if n.startswith("watched/")), "train/loss")
    names = [loss, *sorted(n for n in told.series if n.startswith(kinds))]
    held = {name: dict(points) for name, points in told.series.items()}
    near = range(told.around - SHOWN, told.around + SHOWN + 1)
    steps = sorted({s for s in held.get(loss, {}) if s in near})
    events = {
        step: ", ".join(n.removeprefix("events/") for n in held if _event(n) and step in held[n])
        for step in steps
    }
    rows = [[s, *(held[n].get(s, "") for n in names), events[s]] for s in steps]
    return ["step", *names, "events"], rows


def _chosen(
    decisions: Sequence[tuple[int, Mapping[str, Any]]], losses: Points, around: int | None
) -> tuple[int, str]:
    if around is not None:
        if not losses[0][0] <= around <= losses[-1][0]:
            made = f"it made the steps {losses[0][0]} to {losses[-1][0]}"
            raise ValueError(f"`--around` must be a step of the run, got {around}; {made}.")
        return around, "as asked"
    for step, row in decisions:
        if row.get("condition") in _TROUBLE:
            return step, "the first alarm"
    if decisions:
        return decisions[0][0], "the first decision; there was no alarm"
    return losses[-1][0], "the end; nothing was decided"


def _before(series: Mapping[str, Points], loss: str, step: int) -> Iterator[str]:
    values = _finite(series.get(loss, []), to=step - 1)
    if not values:
        return
    low, high, usual = min(values), max(values), statistics.median(values)
    said = f"Before, the loss lay between {low:.4g} and {high:.4g}, at {usual:.4g} in the middle"
    yield f"{said}{_rates(series, step - 1)}."


def _departures(series: Mapping[str, Points], loss: str, step: int) -> list[str]:
    """Tell what left its usual range, in the order in which that happened."""
    found: list[tuple[int, str]] = []
    for kind, called in _QUANTITIES.items():
        for name in [loss] if not kind else [n for n in series if n.startswith(kind)]:
            label = f"{called} of {name.removeprefix(kind)}" if kind else called
            found += _departed(label, series.get(name, []), step)
    return [said for _, said in sorted(found, key=lambda pair: pair[0])]


def _departed(label: str, points: Points, step: int) -> Iterator[tuple[int, str]]:
    """Tell when a quantity was not finite, and when it was far larger than before a step."""
    odd = [s for s, value in points if not math.isfinite(value)]
    if odd:
        yield odd[0], f"{label} was not finite at {_steps(odd)}."
    before = _finite(points, to=step - 2)  # what moved the weights was the step before
    usual = statistics.median(before) if before else 0.0
    limit = max(LARGE * usual, *before, 0.0)
    far = [(v, s) for s, v in points if s >= step - 1 and limit < v < math.inf]
    if usual > 0 and far:
        (peak, at), began = max(far), far[0][1]
        when = f"at step {at}" if at == began else f"from step {began} on, at step {at}"
        yield began, f"{label} rose {when} to {peak:.4g}, {peak / usual:.3g} times the usual."


def _decided(step: int, row: Mapping[str, Any]) -> str:
    done = row.get("done") or row.get("reason") or ""
    said = "; ".join(filter(None, (row.get("seen"), done)))
    said = f"Step {step}, {row.get('action', 'decision')}: {said}"
    if row.get("expected"):
        said += f"; expected: {row['expected']}"
    return f"{said}. Outcome: {row['outcome']}." if row.get("outcome") else f"{said}."


def _events(series: Mapping[str, Points]) -> Iterator[str]:
    words = {
        "skipped": "left out, as loss or gradients were not finite",
        "held": "held: weights were compared, none changed",
        "clipped": "scaled down, as the gradient norm was an outlier",
        "abandoned": "made on weights that a roll-back left behind",
    }
    for event, said in words.items():
        for name in (n for n in series if n == f"events/{event}" or n.endswith(f"/{event}")):
            steps = [step for step, _ in series[name]]
            yield f"{_steps(steps)} {'was' if len(steps) == 1 else 'were'} {said}."


def _after(series: Mapping[str, Points], loss: str, step: int, last: int) -> Iterator[str]:
    begin = max(step + 1, last - END + 1)
    values = _finite(series.get(loss, []), begin)
    if values:
        said = f"At the end of this, steps {begin} to {last}, the loss was"
        yield f"{said} {statistics.median(values):.4g}{_rates(series, last)}."


def _rates(series: Mapping[str, Points], step: int) -> str:
    """Tell the rates in force at a step."""
    names = [n for n in series if n.startswith("lr/")][:4]
    rates = [(n, [v for s, v in series[n] if s <= step]) for n in names]
    told = [f"{v[-1]:.4g} ({n.removeprefix('lr/')})" for n, v in rates if v]
    return f"; the rate in force was {', '.join(told)}" if told else ""


def _finite(points: Points, first: float = -math.inf, to: float = math.inf) -> list[float]:
    return [v for s, v in points if first <= s <= to and math.isfinite(v)]


def _event(name: str) -> bool:
    return name.startswith("events/")


def _steps(steps: Sequence[int]) -> str:
    """Name steps: ``step 3``, ``steps 3 to 9``, ``steps 3, 7 and 9``.

    >>> _steps([3]), _steps([3, 4, 5]), _steps([3, 7, 9])
    ('step 3', 'steps 3 to 5', 'steps 3, 7 and 9')
    """
    if len(steps) == 1:
        return f"step {steps[0]}"
    if steps[-1] - steps[0] == len(steps) - 1 >= 2:
        return f"steps {steps[0]} to {steps[-1]}"
    if len(steps) > 6:
        return f"{len(steps)} of the steps {steps[0]} to {steps[-1]}"
    return f"steps {', '.join(map(str, steps[:-1]))} and {steps[-1]}"
