"""``lr-callbacks replay``: what would have been decided on a recorded loss curve."""

import argparse
import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lr_callbacks import policies
from lr_callbacks.controller import Controller, row
from lr_callbacks.core import Decision, Observation
from lr_callbacks.detectors import default_detectors
from lr_callbacks.report.history import COLUMNS, History, settled
from lr_callbacks.report.load_curve import Point, load
from lr_callbacks.terminal import show, show_json

#: The outcome of a comparison with older weights.
UNKNOWN = "unknown: a recorded curve cannot answer"


def _policies() -> dict[str, type]:
    return {name.lower(): getattr(policies, name) for name in policies.__all__}


EXAMPLES = f"""\
CURVE is a CSV file with the columns step,loss (and lr, if known), also one of Lightning's CSVLogger
or an export of TensorBoard or Weights & Biases; a journal; last, for the newest journal here; or
the id of an MLflow run. Nothing is trained: the curve does not answer to what would have been
decided. Where older weights would have been held on the present batches, what they give is unknown,
and the replay goes on as if nothing had changed.

settings:
  policy=NAME           {", ".join(_policies())}
  policy.KEY=VALUE      a setting of the policy
  detectors=NAME,NAME   some of {", ".join(default_detectors())}; all by default
  NAME.KEY=VALUE        a setting of a detector

examples:
  lr-callbacks replay losses.csv
  lr-callbacks replay losses.csv policy=hold detectors=spike,drift spike.arl=3000
  lr-callbacks replay last policy.quiet=50
  lr-callbacks replay journals/20250102-030405-1a2b3c4d/run.journal.jsonl policy.cut=0.3
  lr-callbacks replay 0f1e2d3c4b5a69788796a5b4c3d2e1f0 --tracking-uri sqlite:///mlflow.db
  lr-callbacks replay losses.csv --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.add_argument("curve", metavar="CURVE")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--loss", help="column or metric of the losses (train/loss, or loss)")
    parser.add_argument("--tracking-uri", help="MLflow's store (MLFLOW_TRACKING_URI, or mlflow.db)")
    parser.add_argument("--output", type=Path, help="the figure (replay.png)", default="replay.png")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def main(options: argparse.Namespace) -> int:
    """Print the table, write the figure, and return the exit code.

    Raises:
        ValueError, OSError: a setting or the curve is impossible, or the figure cannot be written.
    """
    from lr_callbacks.report.figure import draw  # which loads matplotlib

    controller = build(options.settings)
    points = load(options.curve, options.loss, options.tracking_uri)
    decisions = replay(controller, points)
    rows = table(points, decisions)
    run = _history(points, decisions, rows)
    draw({Path(options.curve).name: run}).savefig(options.output, dpi=130)
    made = [{"step": step, **row} for step, row in rows]
    if options.json:
        show_json({"losses": len(points), "decisions": made, "figure": options.output})
        return 0
    show(COLUMNS, [[row[name] for name in COLUMNS] for row in made])
    if compared := sum(row["outcome"] == UNKNOWN for row in made):
        print(f"{compared} times older weights would have been held; what they give is {UNKNOWN}.")
    print(f"{len(points)} losses, {len(rows)} decisions; figure: {options.output}")
    return 0


def build(settings: Sequence[str]) -> Controller:
    """Build a controller from ``KEY=VALUE`` settings.

    Raises:
        ValueError: a key or a value is impossible; one sentence.

    >>> sorted(build(["policy=hold", "detectors=spike", "spike.arl=3000"]).detectors)
    ['spike']
    """
    values: dict[str, dict[str, str]] = {"policy": {}}
    kinds: dict[str, type] = {n: type(d) for n, d in default_detectors().items()}
    policy, names = "guard", list(kinds)
    for setting in settings:
        key, equals, value = setting.partition("=")
        part, dot, field = key.partition(".")
        if not equals:
            raise ValueError(f"{setting!r} must be KEY=VALUE, for instance policy=hold.")
        if key == "policy":
            policy = _one_of(value, _policies(), "policy")
        elif key == "detectors":
            chosen = [name.strip() for name in value.strip("[]").split(",") if name.strip()]
            names = [_one_of(name, kinds, "detectors") for name in chosen]
        elif dot and part in (*kinds, "policy"):
            values.setdefault(part, {})[field] = value
        else:
            valid = ["policy", "detectors", *kinds]
            raise ValueError(f"unknown setting `{key}`{_nearest(part, valid)}.")
    return Controller(
        policy=_made(_policies()[policy], "policy", values["policy"]),
        detectors={name: _made(kinds[name], name, values.get(name, {})) for name in names},
    )


def replay(controller: Controller, points: Sequence[Point]) -> list[Decision]:
    """Return what would have been decided after each recorded step.

    What older weights would have given, while a decision says `Decision.hold`, no curve tells. They
    are taken to do no better than the weights that alarmed, for then the training goes on as it
    was recorded: each of their losses is the largest since the last decision.
    """
    state, scale, held, highest = controller.init(), 1.0, False, -math.inf
    decisions: list[Decision] = []
    for point in points:
        if not held and math.isfinite(point.loss):
            highest = max(highest, point.loss)
        loss = highest if held and highest > -math.inf else point.loss
        observation = Observation(point.step, loss, scale, point.skipped and not held, held=held)
        state, decision = controller.update(state, observation)
        if decision.reason and not decision.hold:
            highest = point.loss if math.isfinite(point.loss) else -math.inf
        scale, held = decision.scale, decision.hold
        decisions.append(decision)
    return decisions


def table(
    points: Sequence[Point], decisions: Sequence[Decision]
) -> list[tuple[int, dict[str, Any]]]:
    """Return the steps with a reason, and their rows as a run's decisions table has them."""
    rows: list[tuple[int, dict[str, Any]]] = []
    before, compared = Decision(), set[int]()
    for point, decision in zip(points, decisions, strict=True):
        if decision.hold and not before.hold:
            compared.add(point.step)
        if decision.reason:
            made = row(decision, point.loss, decision.action(before.scale))
            rows.append((point.step, made | (_UNKNOWN if before.hold else {})))
        before = decision
    for step, made in (rows := settled(rows)):
        if step in compared:
            made["outcome"] = UNKNOWN
    return rows


#: What a replay says where a policy judges the losses of held weights.
_SAID = "what the older weights give is unknown", "going on as recorded, as if nothing had changed"
_UNKNOWN = {"seen": _SAID[0], "done": _SAID[1], "expected": "", "reason": "; ".join(_SAID)}


def _history(
    points: Sequence[Point], decisions: Sequence[Decision], rows: list[tuple[int, dict[str, Any]]]
) -> History:
    """Tell the replay as a run: a rate in force that follows the decisions."""
    scales = [1.0, *[decision.scale for decision in decisions[:-1]]]
    rates = [point.rate for point in points]
    name = "relative" if None in rates else "recorded"
    scheduled = [1.0 if None in rates or rate is None else rate for rate in rates]
    series = {
        "train/loss": [(p.step, p.loss) for p in points],
        f"lr/{name}": [(p.step, s * r) for p, s, r in zip(points, scales, scheduled, strict=True)],
        f"scale/{name}": [(p.step, scale) for p, scale in zip(points, scales, strict=True)],
    }
    return History({}, series, rows, 0, 0)


def _made(kind: type, part: str, values: Mapping[str, str]) -> Any:
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    settings = {}
    for key, text in values.items():
        if key not in fields:
            raise ValueError(f"unknown setting `{part}.{key}`{_nearest(key, list(fields))}.")
        convert = fields[key]
        if convert not in (int, float, str):
            raise ValueError(f"`{part}.{key}` cannot be set from the command line.")
        try:
            settings[key] = convert(text)
        except ValueError as error:
            raise ValueError(f"`{part}.{key}` must be a number, got {text!r}.") from error
    return kind(**settings)


def _one_of(value: str, valid: Mapping[str, Any], key: str) -> str:
    if value not in valid:
        raise ValueError(f"`{key}` must be among {', '.join(valid)}, got {value!r}.")
    return value


def _nearest(key: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(key, valid, n=1)
    return f"; did you mean `{close[0]}`" if close else f"; known are {', '.join(valid)}"
